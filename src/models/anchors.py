"""Anchors: boxes of several sizes and aspect ratios at every cell of every pyramid level (arXiv:1506.01497, section 3.1.1)."""
import numpy as np


def cell_anchors(sizes, aspect_ratios):
    """Anchors (A, 4) float32 of one cell, xyxy pixels around the origin: all ratios for each size.

    Args:
        sizes: square roots of the areas, in pixels.
        aspect_ratios: height / width.
    """
    ratio_root = np.sqrt(np.asarray(aspect_ratios, np.float32))
    sizes = np.asarray(sizes, np.float32)
    height = (ratio_root[:, None] * sizes).reshape(-1)
    width = ((1 / ratio_root)[:, None] * sizes).reshape(-1)
    return np.stack((-width, -height, width, height), 1) / 2


def pyramid_anchors(feature_sizes, strides, sizes, aspect_ratios):
    """Anchors of each level, a list of (H * W * A, 4) float32 arrays, row-major over (y, x, anchor).

    The anchors of cell (y, x) are centred on pixel (x * stride, y * stride).

    Args:
        feature_sizes: (height, width) of each level.
        strides: pixels from cell to cell, of each level.
        sizes: list of sizes of each level.
        aspect_ratios: the same for all levels.
    """
    levels = []
    for (height, width), stride, level_sizes in zip(feature_sizes, strides, sizes):
        x, y = np.meshgrid(np.arange(width) * stride, np.arange(height) * stride)
        shift = np.stack((x, y, x, y), -1).reshape(-1, 1, 4)
        levels.append((shift + cell_anchors(level_sizes, aspect_ratios)).reshape(-1, 4).astype(np.float32))
    return levels
