"""Scaling an image to its canvas, and the choice of the canvas."""
from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from src.dataset.sample import MAX_CROPS, Sample, crop


class Scaling(NamedTuple):
    """How large an image becomes: as large as its canvas allows, or with shortest sides of `shortest` pixels.

    Where these would make the longest side more than `longest` pixels, that is what it becomes, unless `longest` is None.
    """
    shortest: float | None = None
    longest: float | None = None
    exact_factor: bool = False
    shrink: str = "linear"


FIT = Scaling()


def scaling_of(item_transforms: list[dict]) -> Scaling:
    """The scaling that a list of transforms asks for, in its Resize or, the largest that may be drawn, in its ScaleJitter."""
    steps = {name: parameters for item in item_transforms for name, parameters in item.items()}
    if "ScaleJitter" in steps:
        return Scaling(max(steps["ScaleJitter"]["shortest"]), steps["ScaleJitter"]["longest"])
    return Scaling(**{name: value for name, value in steps["Resize"].items() if name in Scaling._fields})


def scaled_size(size: tuple[int, int], shortest: float, longest: float | None) -> tuple[int, int]:
    """The (height, width) that torchvision's GeneralizedRCNNTransform gives an image of `size`, rounded down to whole pixels."""
    scale = shortest / min(size)
    if longest is not None:
        scale = min(scale, longest / max(size))
    return max(1, math.floor(size[0] * scale)), max(1, math.floor(size[1] * scale))


def fitted_size(size: tuple[int, int], canvas_size: tuple[int, int], scaling: Scaling = FIT) -> tuple[int, int]:
    """The (height, width) in whole pixels of an image of `size` (height, width), scaled by one factor.

    Without `scaling.shortest` it just fits into `canvas_size` (height, width), and sides are rounded. With it, the size is
    `scaled_size`, and an image that would not fit into its canvas just fits.
    """
    if scaling.shortest is not None:
        height, width = scaled_size(size, scaling.shortest, scaling.longest)
        if height <= canvas_size[0] and width <= canvas_size[1]:
            return height, width
    scale = min(canvas_size[0] / size[0], canvas_size[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def choose_canvas(size: tuple[int, int], canvases: tuple[tuple[int, int], ...], scaling: Scaling) -> int:
    """The number of the canvas on which an image of `size` (height, width) becomes largest, the first of equals."""
    return max(range(len(canvases)), key=lambda number: math.prod(fitted_size(size, canvases[number], scaling)))


def resize(sample: Sample, canvas: np.ndarray, scaling: Scaling = FIT) -> Sample:
    """Scale image and boxes by one factor to the `fitted_size` on the canvas (H, W, 3) uint8.

    Sides are whole pixels, so boxes are scaled by the ratio that each axis really got. The scaled image is the canvas's own
    top-left part, which saves a copy; an image that fits already is given back as it is. Images are enlarged by linear
    interpolation, and made smaller as `scaling.shrink` says: `linear`, or `area`, the mean of the pixels that fall into one.
    With `scaling.exact_factor`, pixels and boxes are scaled by min(H / h, W / w) along both axes, as cv2.resize(fx=, fy=) does,
    unless this leaves no whole pixel. Boxes end at the rounded sides.
    """
    size, limits = _size(sample.image), _size(canvas)
    height, width = fitted_size(size, limits, scaling)
    factor = scaling.exact_factor * min(limits[0] / size[0], limits[1] / size[1])
    return _scale_to(sample, canvas[:height, :width], scaling.shrink, factor if factor * min(size) > 0.5 else 0)


def scale_jitter(sample: Sample, rng: Generator, canvas: np.ndarray, shortest: list[int], sampling: str, longest: int | None,
                 min_area: float) -> Sample:
    """Scale image and boxes to a shortest side that is drawn, as `scaled_size` does, and cut the image to the canvas.

    An image that is larger than the canvas (H, W, 3) uint8 keeps a window of its size, or of what there is of it, at a place
    that is drawn; of the boxes those stay of which `min_area` of their area is left. A window that leaves none of them is drawn
    again, up to MAX_CROPS times.

    Args:
        sample: to be scaled.
        rng: the sample's own.
        canvas: to be scaled to; the image may become a part of it.
        shortest: in pixels, the sides to choose from, or the first and the last of a range.
        sampling: list or range.
        longest: side in pixels that `shortest` may lead to, or None.
        min_area: share of a box's area.
    """
    drawn = rng.choice(shortest) if sampling == "list" else rng.integers(shortest[0], shortest[-1], endpoint=True)
    height, width = scaled_size(_size(sample.image), int(drawn), longest)
    rows, columns = min(height, canvas.shape[0]), min(width, canvas.shape[1])
    if (rows, columns) == (height, width):
        return _scale_to(sample, canvas[:height, :width])
    scaled = _scale_to(sample, np.empty((height, width, 3), np.uint8))
    for _ in range(MAX_CROPS):
        top, left = (int(rng.integers(0, rest, endpoint=True)) for rest in (height - rows, width - columns))
        cropped = crop(scaled, top, top + rows, left, left + columns, min_area)
        if len(cropped.boxes):
            break
    return cropped


def _scale_to(sample: Sample, place: np.ndarray, shrink: str = "linear", factor: float = 0) -> Sample:
    """Scale image and boxes by `factor` (0: by the ratio of each axis) into `place` (h, w, 3) uint8, unless it has their size."""
    image = sample.image
    (old_height, old_width), (height, width) = _size(image), _size(place)
    if (height, width) != (old_height, old_width):
        smaller = height < old_height or width < old_width
        interpolation = cv2.INTER_AREA if smaller and shrink == "area" else cv2.INTER_LINEAR
        image = cv2.resize(image, None if factor else (width, height), place, factor, factor, interpolation)
    scale = np.array([factor or height / old_height, factor or width / old_width], dtype=np.float32)
    boxes = np.minimum(sample.boxes * scale[[1, 0, 1, 0]], np.array([width, height] * 2, np.float32))
    return sample._replace(image=image, boxes=boxes, scale=scale)


def _size(image: np.ndarray) -> tuple[int, int]:
    """(height, width) in pixels."""
    return image.shape[0], image.shape[1]
