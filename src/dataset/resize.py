"""Scaling an image to its canvas."""
from __future__ import annotations

import cv2
import numpy as np

from src.dataset.sample import Sample


def fitted_size(size: tuple[int, int], canvas_size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) in whole pixels of an image of `size` (height, width), scaled to just fit into `canvas_size`."""
    scale = min(canvas_size[0] / size[0], canvas_size[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize(sample: Sample, canvas: np.ndarray, keep_ratio: bool = True, shrink: str = "linear") -> Sample:
    """Scale image and boxes by one factor so that the image just fits into the canvas (H, W, 3) uint8.

    Sides are whole pixels, so boxes are scaled by the ratio that each axis really got. The scaled image is the canvas's own
    top-left part, which saves a copy; an image that fits already is given back as it is. Images are enlarged by linear
    interpolation, and made smaller as `shrink` says: `linear`, or `area`, the mean of the pixels that fall into one.
    """
    image = sample.image
    old_height, old_width = image.shape[:2]
    new_height, new_width = fitted_size((old_height, old_width), (canvas.shape[0], canvas.shape[1]))
    if (new_height, new_width) != (old_height, old_width):
        place = canvas[:new_height, :new_width]
        smaller = new_height < old_height or new_width < old_width
        interpolation = cv2.INTER_AREA if smaller and shrink == "area" else cv2.INTER_LINEAR
        cv2.resize(image, (new_width, new_height), dst=place, interpolation=interpolation)
        image = place
    scale = np.array([new_height / old_height, new_width / old_width], dtype=np.float32)
    return sample._replace(image=image, boxes=sample.boxes * scale[[1, 0, 1, 0]], scale=scale)
