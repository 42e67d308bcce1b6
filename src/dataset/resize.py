"""Defines `Sample`, chooses the canvas of an image, and scales and crops samples."""
from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

MAX_CROPS = 10  # attempts to find a window that keeps a box


class Sample(NamedTuple):
    """An image with its boxes. The arrays may belong to a record, so they are never changed in place."""
    image: np.ndarray   # (h, w, 3) uint8 RGB
    boxes: np.ndarray   # (n, 4) float32 xyxy in pixels of the image
    labels: np.ndarray  # (n,) int32, 0..K-1
    scale: np.ndarray = np.ones(2, np.float32)  # (sy, sx), image pixels per pixel of the file

    @property
    def size(self) -> tuple[int, int]:
        """Return (height, width) of the image in pixels."""
        return self.image.shape[0], self.image.shape[1]


class Scaling(NamedTuple):
    """How to scale an image: to a shorter side of `shortest` pixels, or if that is None, as large as its canvas allows.

    `longest`, if not None, limits the longer side in pixels. For `exact_factor` and `shrink` see `resize`.
    """
    shortest: float | None = None
    longest: float | None = None
    exact_factor: bool = False
    shrink: str = "linear"


FIT = Scaling()


def scaling_of(item_transforms: list[dict]) -> Scaling:
    """Return the scaling of transforms: from its Resize, or the largest scaling of its ScaleJitter, FIT for factors."""
    steps = {name: parameters for item in item_transforms for name, parameters in item.items()}
    if "ScaleJitter" in steps:
        jitter = steps["ScaleJitter"]
        return FIT if jitter["factors"] else Scaling(max(jitter["shortest"]), jitter["longest"])
    return Scaling(**{name: value for name, value in steps["Resize"].items() if name in Scaling._fields})


def scaled_size(size: tuple[int, int], shortest: float, longest: float | None) -> tuple[int, int]:
    """Return the (height, width) to which torchvision's GeneralizedRCNNTransform scales `size`, rounded down to whole pixels."""
    scale = shortest / min(size)
    if longest is not None:
        scale = min(scale, longest / max(size))
    return max(1, math.floor(size[0] * scale)), max(1, math.floor(size[1] * scale))


def fitted_size(size: tuple[int, int], canvas_size: tuple[int, int], scaling: Scaling = FIT) -> tuple[int, int]:
    """Return the (height, width) in whole pixels to which an image of `size` (height, width) is scaled by one factor.

    Without `scaling.shortest`, the image just fits into `canvas_size` (height, width), and its sides are rounded. Otherwise, the
    result is `scaled_size`, or if that does not fit into the canvas, the size that just fits.
    """
    if scaling.shortest is not None:
        height, width = scaled_size(size, scaling.shortest, scaling.longest)
        if height <= canvas_size[0] and width <= canvas_size[1]:
            return height, width
    scale = min(canvas_size[0] / size[0], canvas_size[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def choose_canvas(size: tuple[int, int], canvases: tuple[tuple[int, int], ...], scaling: Scaling) -> int:
    """Return the index of the canvas on which an image of `size` (height, width) is largest; ties take the first."""
    return max(range(len(canvases)), key=lambda number: math.prod(fitted_size(size, canvases[number], scaling)))


def resize(sample: Sample, canvas: np.ndarray, scaling: Scaling = FIT) -> Sample:
    """Scale image and boxes by one factor to `fitted_size`, into the canvas (H, W, 3) uint8.

    Image sides are whole pixels, so boxes are scaled by the actual ratio of each axis. The result is a view of the canvas's
    top-left part, which avoids a copy. An image that already has this size is returned unchanged. Enlarging is linear; shrinking
    follows `scaling.shrink`: `linear`, or `area`, the mean of the pixels that a new pixel covers. With `scaling.exact_factor`,
    pixels and boxes are scaled by min(H / h, W / w) along both axes, as cv2.resize(fx=, fy=) does, unless no whole pixel would
    remain. Boxes are clipped to the rounded sides.
    """
    limits = canvas.shape[0], canvas.shape[1]
    height, width = fitted_size(sample.size, limits, scaling)
    factor = scaling.exact_factor * min(limits[0] / sample.size[0], limits[1] / sample.size[1])
    return _scale_to(sample, canvas[:height, :width], scaling.shrink, factor if factor * min(sample.size) > 0.5 else 0)


def scale_jitter(sample: Sample, rng: Generator, canvas: np.ndarray, shortest: list[int], sampling: str, longest: int | None,
                 factors: list[float] | None, min_area: float) -> Sample:
    """Scale image and boxes to a random size with `scaled_size`, and crop the image to the canvas.

    An image that is larger than the canvas (H, W, 3) uint8 is cropped to a random window of at most the canvas size, see `crop`.
    If a window removes all boxes, another one is sampled, up to MAX_CROPS times. The returned image may be a view of the canvas.

    Args:
        sample, rng, canvas: the sample, its random generator, and the target.
        shortest: shortest sides in pixels to choose from, or the first and last value of a range.
        sampling: list or range.
        longest: limit of the longest side in pixels, or None.
        factors: range of factors of the largest size that fits the canvas, instead of the three arguments before; or None.
        min_area: fraction of a box's area that must remain.
    """
    if factors:
        fit = min(canvas.shape[0] / sample.size[0], canvas.shape[1] / sample.size[1])
        side, longest = rng.uniform(factors[0], factors[1]) * fit * min(sample.size), None
    else:
        side = rng.choice(shortest) if sampling == "list" else rng.integers(shortest[0], shortest[-1], endpoint=True)
    height, width = scaled_size(sample.size, side, longest)
    rows, columns = min(height, canvas.shape[0]), min(width, canvas.shape[1])
    if (rows, columns) == (height, width):
        return _scale_to(sample, canvas[:height, :width])
    scaled = _scale_to(sample, np.empty((height, width, 3), np.uint8))
    for _ in range(MAX_CROPS):
        top, left = (int(rng.integers(0, rest, endpoint=True)) for rest in (height - rows, width - columns))
        cropped = crop(scaled, (left, top, left + columns, top + rows), min_area)
        if len(cropped.boxes):
            break
    return cropped


def _scale_to(sample: Sample, place: np.ndarray, shrink: str = "linear", factor: float = 0) -> Sample:
    """Scale image and boxes by `factor` (0: the ratio of each axis) into `place` (h, w, 3) uint8, unless the size is the same."""
    image, (old_height, old_width), (height, width) = sample.image, sample.size, place.shape[:2]
    if (height, width) != (old_height, old_width):
        smaller = height < old_height or width < old_width
        interpolation = cv2.INTER_AREA if smaller and shrink == "area" else cv2.INTER_LINEAR
        image = cv2.resize(image, None if factor else (width, height), place, factor, factor, interpolation)
    scale = np.array([factor or height / old_height, factor or width / old_width], dtype=np.float32)
    boxes = np.minimum(sample.boxes * scale[[1, 0, 1, 0]], np.array([width, height] * 2, np.float32))
    return sample._replace(image=image, boxes=boxes, scale=scale)


def crop(sample: Sample, window: tuple[int, int, int, int], min_area: float) -> Sample:
    """Crop a sample to `window`, xyxy in whole pixels. Boxes are clipped to it, and removed if less than `min_area` of their area
    is inside."""
    left, top, right, bottom = window
    corner = np.array([left, top, left, top], np.float32)
    boxes = np.clip(sample.boxes, corner, np.array([right, bottom, right, bottom], np.float32))
    area, remaining = ((own[:, 2] - own[:, 0]) * (own[:, 3] - own[:, 1]) for own in (sample.boxes, boxes))
    kept = (remaining > 0) & (remaining >= min_area * area)
    return sample._replace(image=sample.image[top:bottom, left:right], boxes=boxes[kept] - corner, labels=sample.labels[kept])
