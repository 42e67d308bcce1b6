"""Scaling an image to its canvas, and the choice of the canvas."""
from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from src.dataset.sample import Sample


class Scaling(NamedTuple):
    """How large an image becomes: as large as its canvas allows, or with shortest sides of `shortest` pixels.

    Where these would make the longest side more than `longest` pixels, that is what it becomes, unless `longest` is None.
    """
    shortest: float | None = None
    longest: float | None = None


FIT = Scaling()


def scaling_of(item_transforms: list[dict]) -> Scaling:
    """The scaling that the Resize of a list of transforms asks for."""
    [parameters] = [item["Resize"] for item in item_transforms if "Resize" in item]
    return Scaling(parameters.get("shortest"), parameters.get("longest"))


def fitted_size(size: tuple[int, int], canvas_size: tuple[int, int], scaling: Scaling = FIT) -> tuple[int, int]:
    """The (height, width) in whole pixels of an image of `size` (height, width), scaled by one factor.

    Without `scaling.shortest` it just fits into `canvas_size` (height, width), and sides are rounded. With it, sides are those
    of torchvision's GeneralizedRCNNTransform, rounded down, and an image that would not fit into its canvas just fits.
    """
    if scaling.shortest is not None:
        scale = scaling.shortest / min(size)
        if scaling.longest is not None:
            scale = min(scale, scaling.longest / max(size))
        height, width = (max(1, math.floor(side * scale)) for side in size)
        if height <= canvas_size[0] and width <= canvas_size[1]:
            return height, width
    scale = min(canvas_size[0] / size[0], canvas_size[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def choose_canvas(size: tuple[int, int], canvases: tuple[tuple[int, int], ...], scaling: Scaling) -> int:
    """The number of the canvas on which an image of `size` (height, width) becomes largest, the first of equals."""
    return max(range(len(canvases)), key=lambda number: math.prod(fitted_size(size, canvases[number], scaling)))


def resize(sample: Sample, canvas: np.ndarray, scaling: Scaling = FIT, shrink: str = "linear") -> Sample:
    """Scale image and boxes by one factor to the `fitted_size` on the canvas (H, W, 3) uint8.

    Sides are whole pixels, so boxes are scaled by the ratio that each axis really got. The scaled image is the canvas's own
    top-left part, which saves a copy; an image that fits already is given back as it is. Images are enlarged by linear
    interpolation, and made smaller as `shrink` says: `linear`, or `area`, the mean of the pixels that fall into one.
    """
    image = sample.image
    old_height, old_width = image.shape[:2]
    new_height, new_width = fitted_size((old_height, old_width), (canvas.shape[0], canvas.shape[1]), scaling)
    if (new_height, new_width) != (old_height, old_width):
        place = canvas[:new_height, :new_width]
        smaller = new_height < old_height or new_width < old_width
        interpolation = cv2.INTER_AREA if smaller and shrink == "area" else cv2.INTER_LINEAR
        cv2.resize(image, (new_width, new_height), dst=place, interpolation=interpolation)
        image = place
    scale = np.array([new_height / old_height, new_width / old_width], dtype=np.float32)
    return sample._replace(image=image, boxes=sample.boxes * scale[[1, 0, 1, 0]], scale=scale)
