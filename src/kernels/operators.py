"""The C++ kernels as MindSpore cells, each with the signature of the cell whose place it takes."""
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.models.patches import inside_level, side_by_side
from src.models.residual import Convolution
from src.models.roi_align import LevelPool


def _custom(library, name, shape, dtype, bprop=None):
    return ops.Custom(f"{library}:{name}", shape, dtype, func_type="aot", bprop=bprop)


class KernelMatch(nn.Cell):
    """`src.models.matching.Match` in two passes over the candidates, without the (B, N, G) table of overlaps.

    Args:
        library: path of the kernels.
    """

    def __init__(self, library, _):
        super().__init__()
        self.match = _custom(library, "Match",
                             lambda candidates, boxes, mask: ([boxes[0], candidates[1]],) * 3,
                             lambda candidates, boxes, mask: (ms.float32, ms.int32, ms.bool_))

    def construct(self, candidates, boxes, mask):
        """See `Match`; without a gradient, as nothing that is chosen by overlap has one."""
        overlap, index, is_best = self.match(candidates, boxes, mask)
        return ops.stop_gradient(overlap), index, is_best


class KernelPool(nn.Cell):
    """`src.models.roi_align.LevelPool` on the levels as they are, without a table of the vectors that the bins take."""

    def __init__(self, library, plain):
        super().__init__()
        self.geometry = Tensor([plain.resolution, plain.samples, int(plain.aligned)], ms.int32)
        side = plain.resolution
        self.pool = _custom(library, "RoIAlign", lambda boxes, level, geometry, *levels: [level[0], levels[0][1], side, side],
                            lambda *_: ms.float32)
        self.gradient = _custom(library, "RoIAlignGrad", _shapes_of_levels, lambda *arguments: (ms.float32,) * (len(arguments) - 4))

    def construct(self, levels, boxes, level):
        """See `LevelPool`; boxes have no gradient."""
        return self.pool(boxes, level, self.geometry, *levels)

    def bprop(self, levels, boxes, level, out, dout):
        """Gradients of the arguments of `construct`."""
        # Not the levels themselves, which would have to be kept until then.
        sizes = ()
        for feature in levels:
            sizes += (ops.zeros(feature.shape[2:], ms.bool_),)
        gradients = self.gradient(boxes, level, self.geometry, dout, *sizes)
        return gradients, ops.zeros_like(boxes), ops.zeros_like(level)


def _shapes_of_levels(boxes, level, geometry, dout, *sizes):
    return tuple([boxes[0], dout[1], *size] for size in sizes)


class KernelPatches(nn.Cell):
    """`src.models.patches.Patches` through the RoIAlign kernel."""

    def __init__(self, library, _):
        super().__init__()
        # Three samples on a side of three cells fall on the cells themselves.
        self.pool = KernelPool(library, LevelPool(resolution=3, sampling_ratio=1, aligned=False))

    def construct(self, levels, level, y, x):
        """See `Patches`."""
        batch, number = level.shape
        heights, widths = (), ()
        for feature in levels:
            heights, widths = heights + (feature.shape[2],), widths + (feature.shape[3],)
        left, top = x.astype(ms.float32) - 1.5, y.astype(ms.float32) - 1.5
        patches = self.pool(levels, ops.stack((left, top, left + 3, top + 3), 2), level.reshape(-1))
        # RoIAlign repeats the border where a convolution sees zeros.
        around = Tensor((-1, 0, 1), ms.int32)
        inside_y = inside_level(y.expand_dims(2) + around, ops.gather(Tensor(heights, ms.int32), level, 0).expand_dims(2))
        inside_x = inside_level(x.expand_dims(2) + around, ops.gather(Tensor(widths, ms.int32), level, 0).expand_dims(2))
        inside = side_by_side(inside_y.expand_dims(3) * inside_x.expand_dims(2), batch)
        channels = levels[0].shape[1]
        patches = patches.reshape(batch, number, channels, 3, 3).transpose(0, 2, 3, 1, 4).reshape(batch, channels, 3, -1)
        return patches * inside.expand_dims(1)


class KernelScaledWeight(nn.Cell):
    """`src.models.residual.ScaledWeight` without the index lists that MindSpore's product with a stretched factor keeps."""

    def __init__(self, library, _):
        super().__init__()
        scale_rows = _custom(library, "ScaleRows", lambda weight, scale: weight, lambda *_: ms.float32)

        def bprop(weight, scale, out, dout):
            return scale_rows(dout, scale), ops.zeros_like(scale)

        self.scale_rows = _custom(library, "ScaleRows", lambda weight, scale: weight, lambda *_: ms.float32, bprop)

    def construct(self, weight, scale):
        """See `ScaledWeight`."""
        return self.scale_rows(weight, scale)


class KernelConvolution(nn.Cell):
    """A 3x3 convolution of stride 1 that keeps the size, and its gradients, by Winograd's F(4x4, 3x3) (arXiv:1509.09308)."""

    # With fewer 4x4 tiles than this in a batch, transforming the weights takes longer than the products that it saves.
    FEWEST_TILES = 40

    def __init__(self, library, plain):
        super().__init__(auto_prefix=False)
        self.plain = plain
        input_gradient = _custom(library, "ConvolutionInputGrad",
                                 lambda dout, weight: [dout[0], weight[1], dout[2], dout[3]], lambda *_: ms.float32)
        weight_gradient = _custom(library, "ConvolutionWeightGrad", lambda x, dout: [dout[1], x[1], 3, 3],
                                  lambda *_: ms.float32)

        def bprop(x, weight, bias, out, dout):
            return input_gradient(dout, weight), weight_gradient(x, dout), dout.sum((0, 2, 3))

        self.convolve = _custom(library, "Convolution",
                                lambda x, weight, bias: [x[0], weight[0], x[2], x[3]], lambda *_: ms.float32, bprop)

    def construct(self, x, weight, bias):
        """x (B, C, H, W), weight (K, C, 3, 3), bias (K,) -> (B, K, H, W) float32."""
        batch, _, height, width = x.shape
        if batch * (-(-height // 4)) * (-(-width // 4)) < self.FEWEST_TILES:
            return self.plain(x, weight, bias)
        return self.convolve(x, weight, bias)


class KernelConv2d(nn.Cell):
    """nn.Conv2d through `KernelConvolution`; weight and bias stay the parameters that they are."""

    def __init__(self, library, conv):
        super().__init__(auto_prefix=False)
        self.weight = conv.weight
        self.bias = conv.bias if conv.has_bias else Tensor(np.zeros(conv.out_channels, np.float32))
        self.convolution = KernelConvolution(library, Convolution(conv))

    def construct(self, x):
        """See nn.Conv2d."""
        return self.convolution(x, self.weight, self.bias)
