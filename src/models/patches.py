"""Features around single cells of a pyramid: a loss on a few anchors needs the RPN's convolution only there."""
from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.models.roi_align import flatten_levels


class ExtractPatches(nn.Cell):
    """Extracts the 3x3 features around cells of the pyramid, as the input of a padded 3x3 convolution: zero outside the level."""

    def construct(self, levels, level, y, x):
        """Return the patches of each image side by side, (B, C, 3, 3 * S) float32.

        Args:
            levels: tuple of (B, C, H_i, W_i) float32.
            level: (B, S) int32, level of each cell.
            y: (B, S) int32, row of the cell in its level.
            x: (B, S) int32, column of the cell in its level.
        """
        rows, height, width, first_row = flatten_levels(levels, level)
        height, width = height.reshape(-1, 1), width.reshape(-1, 1)
        around = Tensor((-1, 0, 1), ms.int32)
        y, x = y.reshape(-1, 1) + around, x.reshape(-1, 1) + around
        inside = inside_level(y, height).expand_dims(2) * inside_level(x, width).expand_dims(1)
        index = (y * width + first_row.reshape(-1, 1)).expand_dims(2) + x.expand_dims(1)
        # Cells outside the level read the row of zeros.
        index = ops.select(inside > 0, index, ops.full_like(index, rows.shape[0] - 1))
        return ops.gather(rows, side_by_side(index, level.shape[0]), 0).transpose(0, 3, 1, 2)


def side_by_side(patches: Tensor, batch: int) -> Tensor:
    """Return patches (B * S, 3, 3) placed side by side, (B, 3, 3 * S); batch is B."""
    return patches.reshape(batch, -1, 3, 3).transpose(0, 2, 1, 3).reshape(batch, 3, -1)


def inside_level(position: Tensor, limit: Tensor) -> Tensor:
    """Return (M, 3) float32: 1 where position (M, 3) is in [0, limit), with limit (M, 1), and 0 elsewhere."""
    return ops.cast(ops.logical_and(position >= 0, position < limit), ms.float32)
