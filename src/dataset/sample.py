"""What the transforms work on, and cutting a window out of it."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

UNSCALED = np.ones(2, np.float32)
MAX_CROPS = 10  # windows that are drawn until one leaves a box


class Sample(NamedTuple):
    """An image with its boxes. No array of it is changed in place: they may be those of a record."""
    image: np.ndarray             # (h, w, 3) uint8 RGB
    boxes: np.ndarray             # (n, 4) float32 xyxy, pixels of the image
    labels: np.ndarray            # (n,) int32, 0..K-1
    scale: np.ndarray = UNSCALED  # (2,) float32, pixels of the image per pixel of the file, (sy, sx)


def crop(sample: Sample, top: int, bottom: int, left: int, right: int, min_area: float) -> Sample:
    """The part of an image between rows top and bottom and columns left and right, the last of them excluded.

    Boxes are clipped to it, and go where less than `min_area` of their area is left.
    """
    areas = _areas(sample.boxes)
    corner = np.array([left, top, left, top], np.float32)
    boxes = np.clip(sample.boxes, corner, np.array([right, bottom, right, bottom], np.float32))
    remaining = _areas(boxes)
    kept = (remaining > 0) & (remaining >= min_area * areas)
    return sample._replace(image=sample.image[top:bottom, left:right], boxes=boxes[kept] - corner, labels=sample.labels[kept])


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
