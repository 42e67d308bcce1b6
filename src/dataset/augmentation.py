"""Random transforms. Each uses the random generator of its sample."""
from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from src.dataset.library_augmentation import transform_with_albumentations
from src.dataset.sample import MAX_CROPS, Sample, crop

LEVELS = np.arange(256.0)  # grey levels of a channel
QUARTER_TURNS = {1: cv2.ROTATE_90_CLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_COUNTERCLOCKWISE}


def random_flip(sample: Sample, rng: Generator, prob: float) -> Sample:
    """Mirror image and boxes left to right with probability `prob`."""
    return _mirrored(sample, axis=1) if rng.random() < prob else sample


def random_vertical_flip(sample: Sample, rng: Generator, prob: float) -> Sample:
    """Mirror image and boxes top to bottom with probability `prob`."""
    return _mirrored(sample, axis=0) if rng.random() < prob else sample


def _mirrored(sample: Sample, axis: int) -> Sample:
    """Return the sample with its rows (axis 0) or columns (axis 1) reversed."""
    low, high = 1 - axis, 3 - axis  # columns of this axis in a box, where x comes first
    boxes = sample.boxes.copy()
    boxes[:, [low, high]] = sample.image.shape[axis] - sample.boxes[:, [high, low]]
    return sample._replace(image=cv2.flip(sample.image, axis), boxes=boxes)


def random_rotate90(sample: Sample, rng: Generator, prob: float) -> Sample:
    """Rotate image and boxes by 90, 180 or 270 degrees, equally likely, with probability `prob`."""
    if rng.random() >= prob:
        return sample
    turns = int(rng.integers(1, 4))
    (height, width), (x1, y1, x2, y2) = sample.image.shape[:2], sample.boxes.T
    turned = {1: (height - y2, x1, height - y1, x2),  # clockwise
              2: (width - x2, height - y2, width - x1, height - y1),
              3: (y1, width - x2, y2, width - x1)}[turns]
    return sample._replace(image=cv2.rotate(sample.image, QUARTER_TURNS[turns]), boxes=np.stack(turned, axis=1))


def random_crop(sample: Sample, rng: Generator, prob: float, min_scale: float, min_area: float) -> Sample:
    """Crop a random window with probability `prob`.

    Each side of the window is sampled from min_scale..1 of the image's side, then its position; both are whole pixels. Boxes are
    clipped to the window. Boxes with less than `min_area` of their area inside it are removed. If a window removes all boxes,
    another one is sampled. After MAX_CROPS attempts the image is not cropped.
    """
    if rng.random() >= prob:
        return sample
    for _ in range(MAX_CROPS):
        (top, bottom), (left, right) = (_draw_range(rng, side, min_scale) for side in sample.image.shape[:2])
        cropped = crop(sample, top, bottom, left, right, min_area)
        if len(cropped.boxes) or not len(sample.boxes):
            return cropped
    return sample


def _draw_range(rng: Generator, side: int, min_scale: float) -> tuple[int, int]:
    """Return the start and end of a random interval within a side, in whole pixels."""
    length = max(1, round(side * rng.uniform(min_scale, 1.0)))
    begin = int(rng.integers(0, side - length + 1))
    return begin, begin + length


def random_hsv(sample: Sample, rng: Generator, hgain: float, sgain: float, vgain: float) -> Sample:
    """Multiply hue, saturation and value by random factors from [1 - gain, 1 + gain]."""
    factors = 1.0 + rng.uniform(-1.0, 1.0, 3) * (hgain, sgain, vgain)
    levels = np.arange(256)
    tables = [levels * factors[0] % 180, np.clip(levels * factors[1], 0, 255), np.clip(levels * factors[2], 0, 255)]
    table = np.stack(tables, axis=1).astype(np.uint8)[None]
    image = cv2.cvtColor(cv2.LUT(cv2.cvtColor(sample.image, cv2.COLOR_RGB2HSV), table), cv2.COLOR_HSV2RGB)
    return sample._replace(image=image)


def photometric_distortion(sample: Sample, rng: Generator, brightness: float, contrast: float, saturation: float,
                           hue: float) -> Sample:
    """Change brightness, contrast, saturation and hue, each with probability 0.5, as in SSD (arXiv:1512.02325).

    Brightness is an offset of up to `brightness` grey levels, and hue an offset of up to `hue` degrees. Contrast and saturation
    are factors from [1 - x, 1 + x]. Contrast is applied at random either before or after saturation and hue.
    """
    limits = np.array([brightness, contrast, saturation, hue])
    drawn = np.where(rng.random(4) < 0.5, rng.uniform(-limits, limits), 0.0)
    first, last = rng.permutation([1.0, 1.0 + drawn[1]])  # contrast factors; one of them is 1 and has no effect
    image = _look_up(sample.image, np.clip(LEVELS + drawn[0], 0, 255) * first)
    if drawn[2:].any():
        # OpenCV's hues are 0..179, 2 degrees each. COLOR_RGB2HSV_FULL has 256 levels, but the inverse conversion assumes 255.
        tables = [(LEVELS + drawn[3] / 2).round() % 180, LEVELS * (1.0 + drawn[2]), LEVELS]
        image = cv2.cvtColor(_look_up(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), np.stack(tables, axis=1)[None]), cv2.COLOR_HSV2RGB)
    return sample._replace(image=_look_up(image, LEVELS * last))


def _look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the image (h, w, 3) uint8 mapped through a float look-up table (256,), or (1, 256, 3) with one per channel."""
    if np.array_equal(table, LEVELS):
        return image
    return cv2.LUT(image, np.clip(table.round(), 0, 255).astype(np.uint8))


AUGMENTATIONS: dict[str, Callable[..., Sample]] = {
    "RandomFlip": random_flip, "RandomVerticalFlip": random_vertical_flip, "RandomRotate90": random_rotate90,
    "RandomCrop": random_crop, "RandomHSV": random_hsv, "PhotometricDistortion": photometric_distortion,
    "Albumentations": transform_with_albumentations}
