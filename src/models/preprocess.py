"""The network's first layer: 8-bit images to normalised network input."""
from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops


class Preprocess(nn.Cell):
    """uint8 RGB (B, H, W, 3) -> float32 (B, 3, H, W), normalised; outside each image's valid area zero, or what black becomes.

    A look-up table for each channel gives the same bits as the formula applied to float32 pixels.

    Args:
        normalize: parameters of `NormalizeImage`: pixels / 255 if is_scale, then (pixels - mean) / std if norm_type is mean_std;
            outside the valid area, the pixels, which are black there, are normalised as well if pad_first.
        transpose: parameters of `TransposeImage`: the network sees RGB if bgr2rgb, BGR otherwise.
    """

    def __init__(self, normalize: dict, transpose: dict):
        super().__init__()
        values = np.arange(256, dtype=np.float32)[:, None]
        if normalize["is_scale"]:
            values = values / np.float32(255)
        if normalize["norm_type"] == "mean_std":
            values = (values - np.float32(normalize["mean"])) / np.float32(normalize["std"])
        # (3, 256): the normalised value of each channel for each pixel value.
        self.tables = Tensor(np.broadcast_to(values, (256, 3)).T.copy())
        self.pad_first = normalize["pad_first"]
        # Index of the image's channel for each channel of the input.
        self.channels = (0, 1, 2) if transpose["bgr2rgb"] else (2, 1, 0)

    def construct(self, image, valid_size):
        """Returns (B, 3, H, W) float32.

        Args:
            image: (B, H, W, 3) uint8 RGB, black outside the unpadded area.
            valid_size: (B, 2) float32, height and width of the unpadded area.
        """
        height, width = image.shape[1:3]
        inside_y = (ops.arange(height).reshape(1, height, 1) < valid_size[:, 0].reshape(-1, 1, 1)).astype(ms.float32)
        inside_x = (ops.arange(width).reshape(1, 1, width) < valid_size[:, 1].reshape(-1, 1, 1)).astype(ms.float32)
        inside = ops.bmm(inside_y, inside_x)
        channels = ()
        for i in range(3):
            values = ops.gather(self.tables[i], image[:, :, :, self.channels[i]].astype(ms.int32), 0)
            channels += (values if self.pad_first else values * inside,)
        return ops.stack(channels, 1)
