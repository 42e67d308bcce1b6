"""Features of regions, gathered from a feature pyramid: RoIAlign (arXiv:1703.06870), and patches around the cells of anchors.

The size of an RoI selects its level (arXiv:1612.03144, equation 1).
"""
from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.models.boxes import HALVES, MIN_SIDE, area

# An RoI of 224 x 224 pixels, the size of an ImageNet image, is pooled from P4, whose stride is 16.
CANONICAL_SIZE = 224
CANONICAL_LEVEL = 4


class MultiScaleRoIAlign(nn.Cell):
    """Pools each RoI from the pyramid level that matches its size.

    Args:
        strides: strides of the levels for pooling, finest first, in pixels.
        resolution, sampling_ratio, aligned: see `RoIAlign`.
        operator: `gather` selects `RoIAlign`, `roi_align` selects `OperatorRoIAlign`.
    """

    def __init__(self, strides: list[int], resolution: int, sampling_ratio: int, aligned: bool, operator: str = "gather"):
        super().__init__()
        self.inverse_stride = Tensor(1 / np.asarray(strides, np.float32))
        self.num_levels = len(strides)
        self.finest = int(np.log2(strides[0]))
        self.pool = (RoIAlign if operator == "gather" else OperatorRoIAlign)(resolution, sampling_ratio, aligned)

    def construct(self, levels: tuple[Tensor, ...], rois: Tensor) -> Tensor:
        """Return the pooled features (B * R, C, resolution, resolution) float32.

        Args:
            levels: tuple of (B, C, H_i, W_i) float32. Levels after the last of `strides` are ignored.
            rois: (B, R, 4) float32 xyxy pixels of the canvas.
        """
        return self.pool(levels[: self.num_levels], *self.locate(rois))

    def locate(self, rois: Tensor) -> tuple[Tensor, Tensor]:
        """Convert rois (B, R, 4) in pixels. Return boxes (B, R, 4) in cells of their level, and level indices (B * R,) int32.

        The level, an index into `strides`, is 4 + log2(sqrt(area) / 224), clamped. 1e-6 is added so that rounding does not lower
        the level of a size of exactly 224 times a power of 2.
        """
        size = ops.maximum(ops.sqrt(area(rois.reshape(-1, 4))), MIN_SIDE)
        level = ops.floor(CANONICAL_LEVEL + ops.log2(size / CANONICAL_SIZE) + 1e-6) - self.finest
        level = ops.cast(ops.clamp(level, 0, self.num_levels - 1), ms.int32)
        return rois * ops.gather(self.inverse_stride, level, 0).reshape(rois.shape[0], -1, 1), level


class RoIAlign(nn.Cell):
    """RoIAlign of boxes with known levels. It gathers rows of the flattened levels.

    Every output bin is a weighted mean of (2 x samples)^2 feature vectors, computed by a gather and a small matrix product.
    The result is bit-identical in every run, while the gradient of MindSpore's ROIAlign depends on the order of its threads.
    On the CPU, it is also several times faster than ROIAlign.

    Args:
        resolution: number of bins per side.
        sampling_ratio: number of samples per bin and axis.
        aligned: True shifts boxes by half a cell so that pixel centres match; False is the original RoIAlign.
    """

    def __init__(self, resolution: int, sampling_ratio: int, aligned: bool):
        super().__init__()
        self.resolution, self.samples, self.aligned = resolution, sampling_ratio, aligned
        self.shift, self.smallest_side = (0.5, 0.0) if aligned else (0.0, 1.0)
        # Positions of the samples along a side of length 1.
        steps = (np.arange(resolution * sampling_ratio) + 0.5) / (resolution * sampling_ratio)
        self.steps = Tensor(steps.astype(np.float32))

    def _axis(self, start, end, limit):
        """Return the cells along one axis that the samples interpolate, and their weights. Both have the shape
        (M, resolution, 2 * samples); cells are int32, weights float32.

        Args:
            start, end: (M,) start and end of each box in cells of its level.
            limit: (M,) number of cells of the level along this axis.
        """
        length = ops.maximum(end - start, self.smallest_side)
        position = start.expand_dims(1) + length.expand_dims(1) * self.steps
        limit = limit.expand_dims(1)
        inside = ops.cast(ops.logical_and(position >= -1, position <= limit), position.dtype)
        position = ops.minimum(ops.maximum(position, 0), limit - 1)
        low = ops.floor(position)
        high = ops.minimum(low + 1, limit - 1)
        upper_weight = position - low
        weight = ops.stack((1 - upper_weight, upper_weight), -1) * inside.expand_dims(2) / self.samples
        index = ops.cast(ops.stack((low, high), -1), ms.int32)
        shape = (-1, self.resolution, 2 * self.samples)
        return index.reshape(shape), weight.reshape(shape)

    def construct(self, levels: tuple[Tensor, ...], boxes: Tensor, level: Tensor) -> Tensor:
        """Return the pooled features (B * R, C, resolution, resolution) float32.

        Args:
            levels: tuple of (B, C, H_i, W_i) float32.
            boxes: (B, R, 4) float32 xyxy in cells of their level.
            level: (B * R,) int32, index into `levels`.
        """
        batch, number = boxes.shape[:2]
        rows, height, width, first_row = flatten_levels(levels, level.reshape(batch, number))
        channels = rows.shape[1]
        cells = boxes.reshape(-1, 4) - self.shift
        y, y_weight = self._axis(cells[:, 1], cells[:, 3], ops.cast(height, ms.float32))
        x, x_weight = self._axis(cells[:, 0], cells[:, 2], ops.cast(width, ms.float32))

        # (M, bins y, bins x, samples y, samples x)
        y = (y * width.reshape(-1, 1, 1) + first_row.reshape(-1, 1, 1)).expand_dims(2).expand_dims(4)
        index = y + x.expand_dims(1).expand_dims(3)
        weight = y_weight.expand_dims(2).expand_dims(4) * x_weight.expand_dims(1).expand_dims(3)
        taps = (2 * self.samples) ** 2
        picked = ops.gather(rows, index.reshape(-1, taps), 0)
        pooled = ops.bmm(weight.reshape(-1, 1, taps), picked)
        return pooled.reshape(batch * number, self.resolution, self.resolution, channels).transpose(0, 3, 1, 2)


class OperatorRoIAlign(RoIAlign):
    """RoIAlign with MindSpore's operator. It pools every box from every level, and selects the result of the box's level.

    It is meant for Ascend and GPU. For 1,024 RoIs with 256 channels, the gather of `RoIAlign` writes 822 MB, and its backward
    pass accumulates 800,000 rows. Outputs and gradients equal `RoIAlign` up to the rounding of positions.

    roi_end_mode must be 1: a box then ends one pixel (here one cell) after its corner. MindSpore 2.10 does not pass the mode to
    the gradient, which always uses mode 1, the default of CANN. According to CANN's sources, both modes on Ascend enlarge boxes
    to at least one cell per side, unlike on the CPU and GPU. Aligned boxes smaller than one cell (4 pixels on the finest level)
    are therefore pooled as boxes of one cell.
    """

    def __init__(self, resolution: int, sampling_ratio: int, aligned: bool):
        super().__init__(resolution, sampling_ratio, aligned)
        # The scale of every level is 1 because boxes are in cells.
        self.operator = ops.ROIAlign(resolution, resolution, 1.0, sampling_ratio, 1)

    def construct(self, levels: tuple[Tensor, ...], boxes: Tensor, level: Tensor) -> Tensor:
        """See `RoIAlign.construct`."""
        batch, number = boxes.shape[:2]
        image = ops.cast(ops.arange(batch), boxes.dtype).reshape(-1, 1, 1).broadcast_to((batch, number, 1))
        start, end = HALVES(boxes - self.shift)
        end = ops.maximum(end, start + self.smallest_side)
        rois = ops.concat((image, start, end - 1), 2).reshape(-1, 5)
        pooled = self.operator(levels[0], rois)
        for i in range(1, len(levels)):
            # A selection instead of a weighted sum, so that non-finite values of another level have no effect.
            is_own = (level == i).reshape(-1, 1, 1, 1).broadcast_to(pooled.shape)
            pooled = ops.select(is_own, self.operator(levels[i], rois), pooled)
        return pooled


# Offsets along an axis of the cells that 3x3 convolutions read for a cell of the output, by the number of convolutions. For two,
# they are the three cells for each of the three cells that the second one reads.
AROUND = {1: (-1, 0, 1), 2: (-2, -1, 0, -1, 0, 1, 0, 1, 2)}


def extract_patches(levels: tuple[Tensor, ...], level: Tensor, y: Tensor, x: Tensor, num_convs: int = 1) -> Tensor:
    """Return k x k features around cells of the pyramid, the patches of an image side by side, (B, C, k, k * S) float32.

    They are the inputs of `num_convs` 3x3 convolutions with stride 3, which equal padded convolutions at these cells. They are
    zero outside the level, and k is 3 ** num_convs. A loss on a few anchors needs the RPN's convolutions only there.

    Args:
        levels: tuple of (B, C, H_i, W_i) float32.
        level, y, x: (B, S) int32, level of each cell, and its row and column in the level.
    """
    rows, height, width, first_row = flatten_levels(levels, level)
    height, width = height.reshape(-1, 1), width.reshape(-1, 1)
    around = Tensor(AROUND[num_convs], ms.int32)
    y, x = y.reshape(-1, 1) + around, x.reshape(-1, 1) + around
    inside = inside_level(y, height).expand_dims(2) * inside_level(x, width).expand_dims(1)
    index = (y * width + first_row.reshape(-1, 1)).expand_dims(2) + x.expand_dims(1)
    # Cells outside the level read the row of zeros.
    index = ops.select(inside > 0, index, ops.full_like(index, rows.shape[0] - 1))
    return ops.gather(rows, side_by_side(index, level.shape[0]), 0).transpose(0, 3, 1, 2)


def side_by_side(patches: Tensor, batch: int) -> Tensor:
    """Return patches (B * S, k, k) placed side by side, (B, k, k * S); batch is B."""
    side = patches.shape[1]
    return patches.reshape(batch, -1, side, side).transpose(0, 2, 1, 3).reshape(batch, side, -1)


def neighbours_inside(levels: tuple[Tensor, ...], level: Tensor, y: Tensor, x: Tensor, num_convs: int = 1) -> Tensor:
    """Return (B, k, k * S) float32: 1 where a cell that `extract_patches` reads for these arguments is in its level, else 0."""
    heights, widths = (), ()
    for feature in levels:
        heights, widths = heights + (feature.shape[2],), widths + (feature.shape[3],)
    around, level = Tensor(AROUND[num_convs], ms.int32), level.reshape(-1, 1)
    inside_y = inside_level(y.reshape(-1, 1) + around, ops.gather(Tensor(heights, ms.int32), level, 0))
    inside_x = inside_level(x.reshape(-1, 1) + around, ops.gather(Tensor(widths, ms.int32), level, 0))
    return side_by_side(inside_y.expand_dims(2) * inside_x.expand_dims(1), y.shape[0])


def inside_level(position: Tensor, limit: Tensor) -> Tensor:
    """Return (M, k) float32: 1 where position (M, k) is in [0, limit), with limit (M, 1), and 0 elsewhere."""
    return ops.cast(ops.logical_and(position >= 0, position < limit), ms.float32)


def flatten_levels(levels: tuple[Tensor, ...], level: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the levels as one table of feature vectors, and the position in the table of the levels of S items per image.

    Args:
        levels: tuple of (B, C, H_i, W_i).
        level: (B, S) int32, level of each item.

    Returns:
        rows: (sum of B * H_i * W_i + 1, C), level by level, row-major over (image, y, x), and a last row of zeros.
        height, width: (B * S,) int32, size of the item's level.
        first_row: (B * S,) int32, row of the cell y = x = 0 of the item's image and level.
    """
    batch, number = level.shape
    rows, heights, widths, firsts, count = (), (), (), (), 0
    for feature in levels:
        channels, height, width = feature.shape[1:]
        rows += (feature.transpose(0, 2, 3, 1).reshape(-1, channels),)
        heights, widths, firsts = heights + (height,), widths + (width,), firsts + (count,)
        count += batch * height * width
    rows += (ops.zeros((1, rows[0].shape[1]), rows[0].dtype),)
    level = level.reshape(-1)
    height, width = ops.gather(Tensor(heights, ms.int32), level, 0), ops.gather(Tensor(widths, ms.int32), level, 0)
    image = ops.cast(ops.arange(0, batch * number), ms.int32) // number
    return ops.concat(rows, 0), height, width, ops.gather(Tensor(firsts, ms.int32), level, 0) + image * height * width
