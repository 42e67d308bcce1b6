"""Anchors: boxes of several sizes and aspect ratios in each cell of each pyramid level (arXiv:1506.01497, section 3.1.1)."""
from __future__ import annotations

import numpy as np


def cell_anchors(sizes: list[float], aspect_ratios: list[float], rounded: bool) -> np.ndarray:
    """Return the anchors of one cell, (A, 4) float32 xyxy in pixels around the origin: all ratios for each size.

    Args:
        sizes: square roots of the areas, in pixels.
        aspect_ratios: height / width.
        rounded: whether to round corners to whole pixels, halves to even, as torchvision does.
    """
    ratio_root = np.sqrt(np.asarray(aspect_ratios, np.float32))
    sizes = np.asarray(sizes, np.float32)
    height = (ratio_root[:, None] * sizes).reshape(-1)
    width = ((1 / ratio_root)[:, None] * sizes).reshape(-1)
    anchors = np.stack((-width, -height, width, height), 1) / 2
    return np.round(anchors) if rounded else anchors


def canvas_anchors(generator, canvas: tuple[int, int]) -> list[np.ndarray]:
    """Return a list with the anchors of each level, (H * W * A, 4) float32 xyxy in pixels, row-major over (y, x, anchor).

    The anchors depend only on the canvas size. The anchors of cell (y, x) are centred on pixel (x * x_stride, y * y_stride).

    Args:
        generator: the section `rpn_head.anchor_generator` of the configuration.
        canvas: (height, width) in pixels.
    """
    levels = []
    for stride, sizes in zip(generator.strides, generator.anchor_sizes):
        height, width = (-(-side // stride) for side in canvas)
        y_stride = x_stride = stride
        if generator.strides_from_canvas:
            y_stride, x_stride = canvas[0] // height, canvas[1] // width
        x, y = np.meshgrid(np.arange(width) * x_stride, np.arange(height) * y_stride)
        shift = np.stack((x, y, x, y), -1).reshape(-1, 1, 4)
        anchors = cell_anchors(sizes, generator.aspect_ratios, generator.rounded)
        levels.append((shift + anchors).reshape(-1, 4).astype(np.float32))
    return levels
