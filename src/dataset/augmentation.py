"""Transforms that draw what they do from the sample's own random generator."""
from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from src.dataset.sample import Sample


def random_flip(sample: Sample, rng: Generator, prob: float) -> Sample:
    """Mirror image and boxes left to right with probability `prob`."""
    if rng.random() >= prob:
        return sample
    width = sample.image.shape[1]
    mirrored = sample.boxes.copy()
    mirrored[:, 0] = width - sample.boxes[:, 2]
    mirrored[:, 2] = width - sample.boxes[:, 0]
    return sample._replace(image=cv2.flip(sample.image, 1), boxes=mirrored)


def random_hsv(sample: Sample, rng: Generator, hgain: float, sgain: float, vgain: float) -> Sample:
    """Multiply hue, saturation and value by factors drawn from [1 - gain, 1 + gain]."""
    factors = 1.0 + rng.uniform(-1.0, 1.0, 3) * (hgain, sgain, vgain)
    levels = np.arange(256)
    tables = [levels * factors[0] % 180, np.clip(levels * factors[1], 0, 255), np.clip(levels * factors[2], 0, 255)]
    table = np.stack(tables, axis=1).astype(np.uint8)[None]
    image = cv2.cvtColor(cv2.LUT(cv2.cvtColor(sample.image, cv2.COLOR_RGB2HSV), table), cv2.COLOR_HSV2RGB)
    return sample._replace(image=image)


AUGMENTATIONS: dict[str, Callable[..., Sample]] = {"RandomFlip": random_flip, "RandomHSV": random_hsv}
