"""Defines `Sample`, the input and output of all transforms, and crops samples."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

UNSCALED = np.ones(2, np.float32)
MAX_CROPS = 10  # attempts to find a window that keeps a box


class Sample(NamedTuple):
    """An image with its boxes. The arrays may belong to a record, so they are never changed in place."""
    image: np.ndarray             # (h, w, 3) uint8 RGB
    boxes: np.ndarray             # (n, 4) float32 xyxy in pixels of the image
    labels: np.ndarray            # (n,) int32, 0..K-1
    scale: np.ndarray = UNSCALED  # (2,) float32 (sy, sx), image pixels per pixel of the file


def crop(sample: Sample, top: int, bottom: int, left: int, right: int, min_area: float) -> Sample:
    """Crop a sample to rows top to bottom and columns left to right, both excluding the end.

    Boxes are clipped to the window. Boxes with less than `min_area` of their area inside it are removed.
    """
    areas = _areas(sample.boxes)
    corner = np.array([left, top, left, top], np.float32)
    boxes = np.clip(sample.boxes, corner, np.array([right, bottom, right, bottom], np.float32))
    remaining = _areas(boxes)
    kept = (remaining > 0) & (remaining >= min_area * areas)
    return sample._replace(image=sample.image[top:bottom, left:right], boxes=boxes[kept] - corner, labels=sample.labels[kept])


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
