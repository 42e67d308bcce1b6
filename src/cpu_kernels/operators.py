"""The C++ kernels as MindSpore cells. Each cell has the signature of the plain cell that it replaces.

Every constructor takes the path of the shared library and the plain cell.
"""
from __future__ import annotations

import itertools
from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.models.roi_align import AROUND, RoIAlign, neighbours_inside

_numbers = itertools.count()


def custom_operator(library: str, name: str, shape: Callable, dtype: Callable) -> ops.Custom:
    """Return the MindSpore operator that calls an entry point of the shared library.

    Args:
        library: path of the shared library.
        name: name of the entry point, whose signature is that of MindSpore's ahead-of-time compiled operators.
        shape: function that maps the input shapes to the output shape, or to a tuple of output shapes.
        dtype: function that maps the input types to the output type, or to a tuple of output types.
    """
    operator = ops.Custom(f"{library}:{name}", shape, dtype, func_type="aot")
    # PyNative mode caches output shapes by operator name, attributes and input shapes. That key is not unique for an entry point:
    # a convolution's stride, for example, is part of its program. A number per operator makes the key unique.
    operator.add_prim_attr("number", next(_numbers))
    return operator


class KernelMatcher(nn.Cell):
    """`src.models.matcher.Matcher` in two passes over the candidates, without the (B, N, G) table of overlaps."""

    def __init__(self, library: str, _):
        super().__init__()
        self.match = custom_operator(library, "Match",
                                     lambda candidates, boxes, mask: ([boxes[0], candidates[1]],) * 3,
                                     lambda candidates, boxes, mask: (ms.float32, ms.int32, ms.bool_))

    def construct(self, candidates: Tensor, boxes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `Matcher`. The result needs no gradient and has none."""
        overlap, index, is_best = self.match(candidates, boxes, mask)
        return ops.stop_gradient(overlap), index, is_best


class KernelRoIAlign(nn.Cell):
    """`src.models.roi_align.RoIAlign` for levels with channels last in memory; keeps their type. Inference only: no gradient."""

    def __init__(self, library: str, plain: RoIAlign):
        super().__init__()
        # `KernelRoIAlignPair` reads these, also when it is built after an evaluation has replaced the plain cell.
        self.resolution, self.samples, self.aligned = plain.resolution, plain.samples, plain.aligned
        self.geometry = Tensor([plain.resolution, plain.samples, int(plain.aligned)], ms.int32)
        self.pool = custom_operator(library, "RoIAlign",
                                    lambda boxes, level, geometry, *levels: [level[0], levels[0][1], *[plain.resolution] * 2],
                                    lambda boxes, level, geometry, *levels: levels[0])

    def construct(self, levels: tuple[Tensor, ...], boxes: Tensor, level: Tensor) -> Tensor:
        """See `RoIAlign`."""
        return self.pool(boxes, level, self.geometry, *levels)


class KernelRoIAlignPair(nn.Cell):
    """Two RoIAligns of the same levels (channels last in memory) with one common gradient. A gradient for each RoIAlign would be
    as large as the levels."""

    def __init__(self, library: str, plain: RoIAlign, other: RoIAlign):
        super().__init__()
        self.pool, self.other_pool = KernelRoIAlign(library, plain), KernelRoIAlign(library, other)
        self.gradient = custom_operator(library, "RoIAlignGrad",
                                        lambda *inputs: tuple([inputs[0][0], inputs[3][1], *size] for size in inputs[8:]),
                                        lambda *inputs: inputs[8:])

    # The levels are the last argument: PyNative mode misreads gradients whose first element is a tuple.
    def construct(self, boxes: Tensor, level: Tensor, other_boxes: Tensor, other_level: Tensor,
                  levels: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the outputs of both RoIAligns; for the arguments see `RoIAlign`. Boxes have no gradient."""
        return self.pool(levels, boxes, level), self.other_pool(levels, other_boxes, other_level)

    def bprop(self, boxes: Tensor, level: Tensor, other_boxes: Tensor, other_level: Tensor, levels: tuple, out: tuple,
              dout: tuple) -> tuple:
        """Return the gradients of the arguments of `construct`."""
        # The gradient needs only the levels' heights, widths and types. Small tensors carry them, so the levels are not kept.
        sizes = ()
        for feature in levels:
            sizes += (ops.zeros(feature.shape[2:], feature.dtype),)
        gradients = self.gradient(boxes, level, self.pool.geometry, dout[0], other_boxes, other_level,
                                  self.other_pool.geometry, dout[1], *sizes)
        return (ops.zeros_like(boxes), ops.zeros_like(level), ops.zeros_like(other_boxes), ops.zeros_like(other_level),
                gradients)


class KernelTrainingFeatures(nn.Cell):
    """`src.models.faster_rcnn.RoIAndAnchorFeatures`, where both parts share one gradient of the levels."""

    def __init__(self, library: str, plain: nn.Cell):
        super().__init__(auto_prefix=False)
        self.roi_align, self.num_convs = plain.roi_align, plain.num_convs
        around = np.array(AROUND[self.num_convs])
        # Side of the patches in cells, and the place of each offset of AROUND in it.
        self.side, self.places = 2 * self.num_convs + 1, Tensor(around - around.min(), ms.int32)
        # One sample per bin: with boxes of as many cells as bins, the samples are the cells themselves.
        self.pools = KernelRoIAlignPair(library, plain.roi_align.pool, RoIAlign(self.side, sampling_ratio=1, aligned=False))

    def construct(self, levels: tuple[Tensor, ...], rois: Tensor, level: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """See `RoIAndAnchorFeatures`."""
        boxes, roi_level = self.roi_align.locate(rois)
        # Boxes (B, S, 4) centred on the cells y, x (B, S).
        left, top = ops.cast(x, ms.float32) - self.side / 2, ops.cast(y, ms.float32) - self.side / 2
        patch_boxes = ops.stack((left, top, left + self.side, top + self.side), 2)
        pooled, patches = self.pools(boxes, roi_level, patch_boxes, level.reshape(-1), levels)
        patches = ops.cast(patches, ms.float32)  # (B * S, C, side, side)
        if self.num_convs > 1:
            patches = ops.gather(ops.gather(patches, self.places, 2), self.places, 3)
        batch, channels, side = level.shape[0], patches.shape[1], patches.shape[2]
        patches = patches.reshape(batch, -1, channels, side, side).transpose(0, 2, 3, 1, 4).reshape(batch, channels, side, -1)
        # RoIAlign repeats the border outside the level.
        return pooled, patches * neighbours_inside(levels, level, y, x, self.num_convs).expand_dims(1)


class KernelPreprocess(nn.Cell):
    """`src.models.preprocess.Preprocess` in one pass, with a look-up table per channel."""

    def __init__(self, library: str, plain: nn.Cell):
        super().__init__()
        self.table, self.channels, self.pad_first = Tensor(plain.table()), Tensor(plain.channels, ms.int32), plain.pad_first
        self.preprocess = custom_operator(library, "Preprocess", lambda image, *_: [image[0], 3, image[1], image[2]],
                                          lambda *_: ms.float32)

    def construct(self, image: Tensor, valid_size: Tensor) -> Tensor:
        """See `Preprocess`."""
        # With `pad_first`, padding inside the canvas is normalised like any other pixel.
        size = ops.full_like(valid_size, max(image.shape[1:3])) if self.pad_first else valid_size
        return ops.stop_gradient(self.preprocess(image, size, self.table, self.channels))


class KernelNMS(nn.Cell):
    """`src.models.rpn.BatchedNMS` for all groups in one call. Each box is compared only with boxes that were kept."""

    def __init__(self, library: str, plain: nn.Cell):
        super().__init__()
        self.threshold = Tensor([plain.threshold], ms.float32)
        self.nms = custom_operator(library, "NMS", lambda boxes, *_: boxes[:2], lambda *_: ms.bool_)

    def construct(self, boxes: Tensor, ends: tuple[int, ...]) -> Tensor:
        """See `BatchedNMS`."""
        return ops.stop_gradient(self.nms(boxes, Tensor(ends, ms.int32), self.threshold))
