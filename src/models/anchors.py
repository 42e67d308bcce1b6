"""Anchors: boxes of several sizes and aspect ratios at every cell of every pyramid level (arXiv:1506.01497, section 3.1.1)."""
from __future__ import annotations

import numpy as np


def cell_anchors(sizes: list[float], aspect_ratios: list[float], rounded: bool) -> np.ndarray:
    """Anchors (A, 4) float32 of one cell, xyxy pixels around the origin: all ratios for each size.

    Args:
        sizes: square roots of the areas, in pixels.
        aspect_ratios: height / width.
        rounded: whether corners are rounded to whole pixels, halves to even ones, as in torchvision.
    """
    ratio_root = np.sqrt(np.asarray(aspect_ratios, np.float32))
    sizes = np.asarray(sizes, np.float32)
    height = (ratio_root[:, None] * sizes).reshape(-1)
    width = ((1 / ratio_root)[:, None] * sizes).reshape(-1)
    anchors = np.stack((-width, -height, width, height), 1) / 2
    return np.round(anchors) if rounded else anchors


def pyramid_anchors(feature_sizes: list[tuple[int, int]], strides: list[tuple[int, int]], sizes: list[list[float]],
                    aspect_ratios: list[float], rounded: bool) -> list[np.ndarray]:
    """Anchors of each level, a list of (H * W * A, 4) float32 arrays, row-major over (y, x, anchor).

    The anchors of cell (y, x) are centred on pixel (x * x_stride, y * y_stride).

    Args:
        feature_sizes: (height, width) of each level.
        strides: (y_stride, x_stride) of each level, in pixels.
        sizes: anchor sizes of each level, see `cell_anchors`.
        aspect_ratios: of all levels.
        rounded: see `cell_anchors`.
    """
    levels = []
    for (height, width), (y_stride, x_stride), level_sizes in zip(feature_sizes, strides, sizes):
        x, y = np.meshgrid(np.arange(width) * x_stride, np.arange(height) * y_stride)
        shift = np.stack((x, y, x, y), -1).reshape(-1, 1, 4)
        levels.append((shift + cell_anchors(level_sizes, aspect_ratios, rounded)).reshape(-1, 4).astype(np.float32))
    return levels


def canvas_anchors(generator, target_size: tuple[int, int]) -> list[np.ndarray]:
    """The anchors of each level, see `pyramid_anchors`; they depend on the size of the canvas only.

    Args:
        generator: the section `rpn_head.anchor_generator` of the configuration.
        target_size: (height, width) of the canvas in pixels.
    """
    sizes = [tuple(-(-side // stride) for side in target_size) for stride in generator.strides]
    strides = [(stride, stride) for stride in generator.strides]
    if generator.strides_from_canvas:
        strides = [tuple(side // cells for side, cells in zip(target_size, size)) for size in sizes]
    return pyramid_anchors(sizes, strides, generator.anchor_sizes, generator.aspect_ratios, generator.rounded)
