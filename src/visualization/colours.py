"""Provides one colour per class label, the same in every program."""
from __future__ import annotations

import functools

import cv2
import numpy as np

COUNT = 256  # label 256 has the colour of label 0 again
STEP = 17  # step of the candidates' red, green and blue levels: 0, 17, ..., 255
FIRST = (221, 51, 34)
# Limits of CIELAB lightness (0..255) and of the distance from grey. Darker, lighter or greyer colours look alike as thin lines.
LIGHTNESS = (85, 215)
MIN_CHROMA = 35


def colour_of(label: int) -> tuple[int, int, int]:
    """Return the RGB colour of a class."""
    return _palette()[label % COUNT]


def text_colour(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return black or white, whichever has the higher contrast ratio (WCAG 2) with an RGB colour."""
    linear = [(c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4) for c in colour]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return (0, 0, 0) if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else (255, 255, 255)


@functools.cache
def _palette():
    """Return colours by farthest-point sampling: each is the candidate farthest from all earlier colours in CIELAB."""
    levels = np.arange(0, 256, STEP, dtype=np.uint8)
    tried = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    places = _lab(tried)
    vivid = ((places[:, 0] >= LIGHTNESS[0]) & (places[:, 0] <= LIGHTNESS[1])
             & (np.linalg.norm(places[:, 1:] - 128, axis=1) >= MIN_CHROMA))
    tried, places = tried[vivid], places[vivid]
    chosen = [FIRST]
    nearest = np.full(len(tried), np.inf)
    while len(chosen) < COUNT:
        nearest = np.minimum(nearest, np.linalg.norm(places - _lab([chosen[-1]]), axis=1))
        chosen.append(tuple(tried[nearest.argmax()].tolist()))
    return chosen


def _lab(colours):
    """Convert RGB colours (n, 3) to OpenCV's 8-bit CIELAB, (n, 3) float64."""
    return cv2.cvtColor(np.array(colours, np.uint8)[None], cv2.COLOR_RGB2LAB)[0].astype(np.float64)
