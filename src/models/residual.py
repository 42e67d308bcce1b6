"""The forward pass of mindcv's residual networks. BatchNorm with stored statistics is folded into the preceding convolution."""
from __future__ import annotations

import mindspore as ms
from mindcv.models.resnet import BasicBlock, Bottleneck
from mindspore import Tensor, nn, ops

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


class PaddedMaxPool(nn.Cell):
    """3x3 max pooling with stride 2 and padding 1. The input must be the output of a ReLU, which is not negative.

    nn.MaxPool2d with padding is MaxPool3DWithArgmax, which runs on Ascend's AI CPU but not on its AI cores. After a ReLU, padding
    with zeros is equivalent: if a padded zero is selected instead of a zero feature, the ReLU stops the gradient anyway.
    """

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)

    def construct(self, x: Tensor) -> Tensor:
        """Return (B, C, ceil(H / 2), ceil(W / 2)) for non-negative x (B, C, H, W)."""
        batch, channels, height, width = x.shape
        # Padding by concatenation: ops.Pad takes 5x longer on the CPU.
        column = ops.zeros((batch, channels, height, 1), x.dtype)
        x = ops.concat((column, x, column) if width % 2 else (column, x), 3)
        row = ops.zeros((batch, channels, 1, x.shape[3]), x.dtype)
        return self.pool(ops.concat((row, x, row) if height % 2 else (row, x), 2))


class FunctionalConv2d(nn.Cell):
    """ops.conv2d as a cell with weight and bias as inputs, and with kernel size, stride, padding, dilation and groups of `conv`.

    Attributes:
        compute_dtype: data type of the multiplications.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__(auto_prefix=False)
        self.conv2d = conv.conv2d
        self.compute_dtype = ms.float32

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return (B, K, H', W') float32 for x (B, C, H, W), weight (K, C, h, w) and bias (K,)."""
        convolved = self.conv2d(ops.cast(x, self.compute_dtype), ops.cast(weight, self.compute_dtype))
        return ops.bias_add(ops.cast(convolved, ms.float32), bias)


class ConvBatchNorm(nn.Cell):
    """A convolution followed by BatchNorm.

    BatchNorm with stored statistics is an affine map: y = conv(x, w s) + (beta - mean s) with s = gamma / sqrt(variance + eps).
    Compared with separate cells, this needs one pass less over the features, and one tensor less in memory.

    `conv` has no bias, and `norm` is an instance of a class in NORMS. Their parameters keep their names.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Cell):
        super().__init__(auto_prefix=False)
        self.conv = conv
        self.norm = norm
        self.convolution = FunctionalConv2d(conv)

    def construct(self, x: Tensor) -> Tensor:
        """Return features (B, K, H', W') for x (B, C, H, W)."""
        norm = self.norm
        if self.training and norm.use_batch_statistics is not False:
            return norm(self.conv(x))
        scale = norm.gamma / ops.sqrt(norm.moving_variance + norm.eps)
        return self.convolution(x, self.conv.weight * scale.reshape(-1, 1, 1, 1), norm.beta - norm.moving_mean * scale)


class ResidualBlock(nn.Cell):
    """mindcv's BasicBlock or Bottleneck (arXiv:1512.03385, figure 5), with the cells and parameter names of `block`."""

    def __init__(self, block: nn.Cell):
        super().__init__(auto_prefix=False)
        pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
        if isinstance(block, Bottleneck):
            pairs.append((block.conv3, block.bn3))
        self.convolutions = nn.CellList([ConvBatchNorm(*pair) for pair in pairs], auto_prefix=False)
        self.shortcut = None if block.down_sample is None else fold_batch_norm(block.down_sample)

    def construct(self, x: Tensor) -> Tensor:
        """Return features (B, K, H', W') for x (B, C, H, W)."""
        out, last = x, len(self.convolutions) - 1
        for i in range(last):
            out = ops.relu(self.convolutions[i](out))
        identity = x if self.shortcut is None else self.shortcut(x)
        return ops.relu(self.convolutions[last](out) + identity)


class Chain(nn.Cell):
    """A sequence of cells that keeps the names of their parameters; nn.SequentialCell would change them."""

    def __init__(self, cells: list[nn.Cell]):
        super().__init__(auto_prefix=False)
        self.cells_in_order = nn.CellList(cells, auto_prefix=False)

    def construct(self, x: Tensor) -> Tensor:
        """Return the output of the last cell for x (B, C, H, W)."""
        for cell in self.cells_in_order:
            x = cell(x)
        return x


def fold_batch_norm(sequence: list[nn.Cell]) -> Chain:
    """Return a `Chain` of the cells. Each convolution followed by BatchNorm becomes one `ConvBatchNorm`."""
    cells = []
    for cell in sequence:
        if isinstance(cell, NORMS) and cells and isinstance(cells[-1], nn.Conv2d) and not cells[-1].has_bias:
            cells[-1] = ConvBatchNorm(cells[-1], cell)
        elif isinstance(cell, nn.SequentialCell):
            cells.append(fold_batch_norm(cell))
        elif type(cell) in (BasicBlock, Bottleneck):
            cells.append(ResidualBlock(cell))
        else:
            cells.append(cell)
    return Chain(cells)
