"""The first layer of the network: converts 8-bit images to normalised input."""
from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops


class Preprocess(nn.Cell):
    """Normalises uint8 RGB (B, H, W, 3) to float32 (B, 3, H, W). The padding becomes zero or normalised black.

    Each elementwise operator is one float32 operation, in the same order as in NumPy: on the CPU the result is bit-identical.

    Args:
        item_transforms: list of transforms with their parameters, of which two run in this cell.
            `NormalizeImage`: pixels / 255 if is_scale, then (pixels - mean) / std if norm_type is mean_std. If pad_first, the
            padding, which is black, is normalised too. Otherwise it becomes zero.
            `TransposeImage`: the network input is RGB if bgr2rgb, and BGR otherwise.

    Attributes:
        channels: index of the image channel for each channel of the network input.
    """

    def __init__(self, item_transforms: list[dict]):
        super().__init__()
        parameters = {name: values for item in item_transforms for name, values in item.items()}
        normalize = parameters["NormalizeImage"]
        self.is_scale, self.pad_first = normalize["is_scale"], normalize["pad_first"]
        self.is_centred = normalize["norm_type"] == "mean_std"
        self.mean, self.std = (Tensor(np.float32(normalize[name]).reshape(3, 1, 1)) for name in ("mean", "std"))
        self.channels = (0, 1, 2) if parameters["TransposeImage"]["bgr2rgb"] else (2, 1, 0)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Return normalised pixels (..., 3, H, W) float32; the channels are in the order of the network input."""
        if self.is_scale:
            pixels = pixels / 255
        return (pixels - self.mean) / self.std if self.is_centred else pixels

    def table(self) -> np.ndarray:
        """Return the normalised value of each pixel value in each channel, (3, 256) float32."""
        return self.normalize(Tensor(np.tile(np.arange(256, dtype=np.float32), (3, 1, 1)))).asnumpy()[:, 0]

    def construct(self, image: Tensor, valid_size: Tensor) -> Tensor:
        """Return the network input (B, 3, H, W) float32.

        Args:
            image: (B, H, W, 3) uint8 RGB, black outside the unpadded area.
            valid_size: (B, 2) float32, height and width of the unpadded area.
        """
        pixels = ops.cast(image, ms.float32).transpose(0, 3, 1, 2)
        if self.channels[0] != 0:
            # No slice with a negative step: not every device supports it.
            pixels = ops.concat((pixels[:, 2:], pixels[:, 1:2], pixels[:, :1]), 1)
        values = self.normalize(pixels)
        if self.pad_first:
            return values
        height, width = image.shape[1:3]
        inside_y = ops.cast(ops.arange(height).reshape(1, height, 1) < valid_size[:, 0].reshape(-1, 1, 1), ms.float32)
        inside_x = ops.cast(ops.arange(width).reshape(1, 1, width) < valid_size[:, 1].reshape(-1, 1, 1), ms.float32)
        return values * ops.bmm(inside_y, inside_x).expand_dims(1)
