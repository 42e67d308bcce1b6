"""Repeat-factor sampling (LVIS, arXiv:1908.03195): images with rare classes come more often."""
from __future__ import annotations

import numpy as np

from src.dataset.annotations import Record


def repeat_factors(records: list[Record], num_classes: int, threshold: float) -> np.ndarray:
    """How often each image comes in an epoch, on average: (N,) float64, at least 1.

    A class that a fraction f of the images has gets max(1, sqrt(threshold / f)), an image the most of its classes.

    Args:
        records: the images.
        num_classes: K, without background.
        threshold: the fraction below which a class is rare; 0 gives 1 for all images.
    """
    if not threshold:
        return np.ones(len(records))  # without a look at every image of a large set
    classes = [np.unique(record.labels) for record in records]
    images = np.bincount(np.concatenate(classes), minlength=num_classes)
    by_class = np.maximum(1.0, np.sqrt(threshold * len(records) / np.maximum(images, 1)))
    return np.array([by_class[own].max(initial=1.0) for own in classes])


def draw_repeats(factors: np.ndarray, canvas_of: np.ndarray, offset: float) -> np.ndarray:
    """How often each image comes in one epoch: (N,) int64, its factor rounded down or up, so that the mean over offsets is the
    factor.

    The paper rounds each factor at random. Here one offset serves all images (systematic sampling), so that each epoch has as
    many images of each canvas as any other; to make them whole numbers, the factors of a canvas grow by less than one image.

    Args:
        factors: (N,) float64, at least 1.
        canvas_of: (N,) number of each image's canvas.
        offset: uniformly random in [0, 1).
    """
    repeats = np.ones(len(factors), dtype=np.int64)
    for canvas in np.unique(canvas_of):
        own = canvas_of == canvas
        ends = np.cumsum(factors[own])
        total = np.ceil(ends[-1])
        ends *= total / ends[-1]
        ends[-1] = total
        repeats[own] = np.diff(np.floor(ends + offset), prepend=0)
    return repeats


def occurrences(order: np.ndarray) -> np.ndarray:
    """For each entry of `order` (N,) int64, how often its value stands before it: (N,) int64."""
    by_value = np.argsort(order, kind="stable")
    values, places = order[by_value], np.arange(len(order))
    first = np.maximum.accumulate(np.where(np.diff(values, prepend=-1) != 0, places, 0))
    result = np.empty_like(order)
    result[by_value] = places - first
    return result
