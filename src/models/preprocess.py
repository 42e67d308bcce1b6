"""The network's first layer: 8-bit images to normalised network input."""
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops


class Preprocess(nn.Cell):
    """uint8 RGB (B, H, W, 3) -> float32 (B, 3, H, W), normalised, zero outside each image's valid area.

    Args:
        normalize: parameters of `NormalizeImage`: pixels / 255 if is_scale, then (pixels - mean) / std if norm_type is mean_std.
        transpose: parameters of `TransposeImage`: the network sees RGB if bgr2rgb, BGR otherwise.
    """

    def __init__(self, normalize, transpose):
        super().__init__()
        values = np.arange(256, dtype=np.float32)[:, None]
        if normalize["is_scale"]:
            values = values / np.float32(255)
        if normalize["norm_type"] == "mean_std":
            values = (values - np.float32(normalize["mean"])) / np.float32(normalize["std"])
        # (3, 256): what each channel makes of the values that a pixel may have.
        self.tables = Tensor(np.broadcast_to(values, (256, 3)).T.copy())
        # Which channel of the image each channel of the input is.
        self.channels = (0, 1, 2) if transpose["bgr2rgb"] else (2, 1, 0)

    def construct(self, image, valid_size):
        """image uint8 (B, H, W, 3), valid_size float32 (B, 2): height and width of the unpadded area."""
        height, width = image.shape[1:3]
        inside_y = (ops.arange(height).reshape(1, height, 1) < valid_size[:, 0].reshape(-1, 1, 1)).astype(ms.float32)
        inside_x = (ops.arange(width).reshape(1, 1, width) < valid_size[:, 1].reshape(-1, 1, 1)).astype(ms.float32)
        inside = ops.bmm(inside_y, inside_x)
        channels = ()
        for i in range(3):
            channels += (ops.gather(self.tables[i], image[:, :, :, self.channels[i]].astype(ms.int32), 0) * inside,)
        return ops.stack(channels, 1)
