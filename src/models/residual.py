"""The forward pass of mindcv's residual networks, with BatchNorm folded into the convolution before it where it is fixed."""
import mindspore as ms
from mindcv.models.resnet import BasicBlock, Bottleneck
from mindspore import nn, ops

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


class Convolution(nn.Cell):
    """A convolution whose weight and bias come as tensors.

    Args:
        conv: nn.Conv2d that has the geometry.

    Attributes:
        compute_dtype: of the products.
    """

    def __init__(self, conv):
        super().__init__(auto_prefix=False)
        self.conv2d = conv.conv2d
        self.compute_dtype = ms.float32

    def construct(self, x, weight, bias):
        """x (B, C, H, W), weight (K, C, h, w), bias (K,) -> (B, K, H', W') float32."""
        convolved = self.conv2d(x.astype(self.compute_dtype), weight.astype(self.compute_dtype))
        return ops.bias_add(convolved.astype(ms.float32), bias)


class ScaledWeight(nn.Cell):
    """A weight (K, ...) times a fixed factor (K,) for each output channel."""

    def construct(self, weight, scale):
        """The scaled weight, (K, ...)."""
        return weight * scale.reshape(-1, 1, 1, 1)


class NormalizedConv(nn.Cell):
    """A convolution and the BatchNorm after it.

    With stored statistics BatchNorm is an affine map, y = conv(x, w s) + (beta - mean s), s = gamma / sqrt(variance + eps):
    one pass over the features and one tensor less to keep than with the two cells one after the other.

    Args:
        conv: nn.Conv2d without bias; norm: BatchNorm over its output; both keep their names.
    """

    def __init__(self, conv, norm):
        super().__init__(auto_prefix=False)
        self.conv = conv
        self.norm = norm
        self.scaled_weight = ScaledWeight()
        self.convolution = Convolution(conv)

    def construct(self, x):
        """x (B, C, H, W) -> (B, K, H', W')."""
        norm = self.norm
        if self.training and norm.use_batch_statistics is not False:
            return norm(self.conv(x))
        scale = norm.gamma / ops.sqrt(norm.moving_variance + norm.eps)
        return self.convolution(x, self.scaled_weight(self.conv.weight, scale), norm.beta - norm.moving_mean * scale)


class ResidualBlock(nn.Cell):
    """mindcv's BasicBlock or Bottleneck (arXiv:1512.03385, figure 5).

    Args:
        block: whose cells this one uses, under their names.
    """

    def __init__(self, block):
        super().__init__(auto_prefix=False)
        pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
        if isinstance(block, Bottleneck):
            pairs.append((block.conv3, block.bn3))
        self.convolutions = nn.CellList([NormalizedConv(*pair) for pair in pairs], auto_prefix=False)
        self.shortcut = None if block.down_sample is None else chain(block.down_sample)

    def construct(self, x):
        """x (B, C, H, W) -> (B, K, H', W')."""
        out, last = x, len(self.convolutions) - 1
        for i in range(last):
            out = ops.relu(self.convolutions[i](out))
        identity = x if self.shortcut is None else self.shortcut(x)
        return ops.relu(self.convolutions[last](out) + identity)


class Chain(nn.Cell):
    """Cells one after the other; they keep their names, which nn.SequentialCell would change."""

    def __init__(self, cells):
        super().__init__(auto_prefix=False)
        self.cells_in_order = nn.CellList(cells, auto_prefix=False)

    def construct(self, x):
        """x (B, C, H, W) -> what the last cell gives."""
        for cell in self.cells_in_order:
            x = cell(x)
        return x


def chain(sequence):
    """A `Chain` of cells that run one after the other, convolutions joined with the BatchNorm that follows them."""
    cells = []
    for cell in sequence:
        if isinstance(cell, NORMS) and cells and isinstance(cells[-1], nn.Conv2d) and not cells[-1].has_bias:
            cells[-1] = NormalizedConv(cells[-1], cell)
        elif isinstance(cell, nn.SequentialCell):
            cells.append(chain(cell))
        elif type(cell) in (BasicBlock, Bottleneck):
            cells.append(ResidualBlock(cell))
        else:
            cells.append(cell)
    return Chain(cells)
