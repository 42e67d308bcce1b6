"""What the transforms work on."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

UNSCALED = np.ones(2, np.float32)


class Sample(NamedTuple):
    """An image with its boxes. No array of it is changed in place: they may be those of a record."""
    image: np.ndarray             # (h, w, 3) uint8 RGB
    boxes: np.ndarray             # (n, 4) float32 xyxy, pixels of the image
    labels: np.ndarray            # (n,) int32, 0..K-1
    scale: np.ndarray = UNSCALED  # (2,) float32, pixels of the image per pixel of the file, (sy, sx)
