"""The network's first layer: 8-bit pictures to normalised network input."""
import numpy as np
from mindspore import Tensor, nn, ops


class Preprocess(nn.Cell):
    """uint8 RGB (B, H, W, 3) -> float32 (B, 3, H, W), normalised, zero outside each picture's valid area.

    Args:
        normalize: parameters of `NormalizeImage`: pixels / 255 if is_scale, then (pixels - mean) / std if norm_type is mean_std.
        transpose: parameters of `TransposeImage`: the network sees RGB if bgr2rgb, BGR otherwise.
    """

    def __init__(self, normalize, transpose):
        super().__init__()
        mean, std = np.zeros(3), np.ones(3)
        if normalize["norm_type"] == "mean_std":
            mean, std = normalize["mean"], normalize["std"]
        self.divisor = 255.0 if normalize["is_scale"] else 1.0
        self.mean = Tensor(np.float32(mean).reshape(1, 3, 1, 1))
        self.std = Tensor(np.float32(std).reshape(1, 3, 1, 1))
        self.channel_order = Tensor(np.int32([0, 1, 2] if transpose["bgr2rgb"] else [2, 1, 0]))

    def construct(self, image, valid_size):
        """image uint8 (B, H, W, 3), valid_size float32 (B, 2): height and width of the unpadded area."""
        height, width = image.shape[1:3]
        pixels = ops.gather(image.astype(self.mean.dtype).transpose(0, 3, 1, 2), self.channel_order, 1)
        inside_y = ops.arange(height).reshape(1, 1, height, 1) < valid_size[:, 0].reshape(-1, 1, 1, 1)
        inside_x = ops.arange(width).reshape(1, 1, 1, width) < valid_size[:, 1].reshape(-1, 1, 1, 1)
        inside = ops.logical_and(inside_y, inside_x).astype(pixels.dtype)
        # One operation after the other, as other frameworks do it: the input is then theirs to the last bit.
        return (pixels / self.divisor - self.mean) / self.std * inside
