"""Repeat-factor sampling (LVIS, arXiv:1908.03195): images with rare classes occur more often."""
from __future__ import annotations

import numpy as np

from src.dataset.annotations import Record


def repeat_factors(records: list[Record], num_classes: int, threshold: float) -> np.ndarray:
    """Return how often each image occurs per epoch on average: (N,) float64, at least 1.

    The factor of a class in a fraction f of the images is max(1, sqrt(threshold / f)). An image has the largest of its classes.

    Args:
        records: the images.
        num_classes: K, without background.
        threshold: fraction of images below which a class is rare; 0 means a factor of 1 for all images.
    """
    if not threshold:
        return np.ones(len(records))  # avoids a pass over all images of a large data set
    classes = [np.unique(record.labels) for record in records]
    images = np.bincount(np.concatenate(classes), minlength=num_classes)
    by_class = np.maximum(1.0, np.sqrt(threshold * len(records) / np.maximum(images, 1)))
    return np.array([by_class[own].max(initial=1.0) for own in classes])


def draw_repeats(factors: np.ndarray, canvas_of: np.ndarray, offset: float) -> np.ndarray:
    """Return how often each image occurs in one epoch: (N,) int64, its factor rounded down or up; the mean is the factor.

    The paper rounds each factor at random. Here all images share one offset (systematic sampling), so that the number of images
    per canvas is the same in every epoch. To make this number an integer, the factors of a canvas grow by less than one image.

    Args:
        factors: (N,) float64, at least 1.
        canvas_of: (N,) canvas index of each image.
        offset: uniform random number in [0, 1).
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
    """Return how often the value of each entry of `order` (N,) int64 occurs before that entry: (N,) int64."""
    by_value = np.argsort(order, kind="stable")
    values, places = order[by_value], np.arange(len(order))
    first = np.maximum.accumulate(np.where(np.diff(values, prepend=-1) != 0, places, 0))
    result = np.empty_like(order)
    result[by_value] = places - first
    return result
