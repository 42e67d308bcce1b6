"""Orders the records of an epoch, repeats records with rare classes, and assigns them to batches.

All images of a batch use the same canvas. Images with rare classes may occur more often (repeat-factor sampling of LVIS,
arXiv:1908.03195).
"""
from __future__ import annotations

import numpy as np

from src.dataset.annotations import Record

# The second number of each seed, one per purpose; src/dataset/shapes.py uses 0 and 1. NumPy pads seeds with zeros.
EPOCH_ORDER, AUGMENTATION, SAMPLING = 2, 3, 4


def repeat_factors(records: list[Record], num_classes: int, threshold: float) -> np.ndarray:
    """Return how often each image occurs per epoch on average: (N,) float64, at least 1.

    The factor of a class (0..K-1) in a fraction f of the images is max(1, sqrt(threshold / f)). The factor of an image is the
    largest of its classes' factors. A threshold of 0 gives 1 for all images.
    """
    if not threshold:
        return np.ones(len(records))  # avoids a pass over all images of a large data set
    classes = [np.unique(record.labels) for record in records]
    images = np.bincount(np.concatenate(classes), minlength=num_classes)
    by_class = np.maximum(1.0, np.sqrt(threshold * len(records) / np.maximum(images, 1)))
    return np.array([by_class[own].max(initial=1.0) for own in classes])


def sample_repeats(factors: np.ndarray, canvas_index: np.ndarray, offset: float) -> np.ndarray:
    """Return how often each image occurs in one epoch: (N,) int64, its factor rounded down or up; the mean is the factor.

    The paper rounds each of the `factors` (N,) float64 at random. Here all images share one `offset`, uniform in [0, 1)
    (systematic sampling), so that the number of images per canvas is the same in every epoch. To make this number an integer, the
    factors of a canvas grow by less than one image. `canvas_index` (N,) has the canvas index of each image.
    """
    repeats = np.ones(len(factors), dtype=np.int64)
    for canvas in np.unique(canvas_index):
        own = canvas_index == canvas
        ends = np.cumsum(factors[own])
        total = np.ceil(ends[-1])
        ends *= total / ends[-1]
        ends[-1] = total
        repeats[own] = np.diff(np.floor(ends + offset), prepend=0)
    return repeats


def epoch_order(seed: int, epoch: int, factors: np.ndarray, canvas_index: np.ndarray) -> np.ndarray:
    """Return the records of an epoch in random order, int64, each as often as `sample_repeats` says."""
    rng = np.random.default_rng([seed, EPOCH_ORDER, epoch])
    records = np.arange(len(factors))
    if (factors > 1).any():
        records = np.repeat(records, sample_repeats(factors, canvas_index, rng.random()))
    return rng.permutation(records)


def one_canvas_batches(order: np.ndarray, canvas_index: np.ndarray, size: int, fill: bool) -> list[np.ndarray]:
    """Split `order`, (N,) int64 record numbers, into batches of `size` records with one canvas each.

    Batches are sorted by the position of their first record. If `fill` is True, the last batch of each canvas is padded with the
    first records of that canvas; otherwise it may be smaller.
    """
    canvases, batches = canvas_index[order], []
    for canvas in np.unique(canvases):
        places = np.flatnonzero(canvases == canvas)
        if fill:
            places = np.resize(places, -(-len(places) // size) * size)  # repeats them from the start
        batches += [places[start:start + size] for start in range(0, len(places), size)]
    return [order[places] for places in sorted(batches, key=lambda places: places[0])]


def occurrences(order: np.ndarray) -> np.ndarray:
    """Return how often the value of each entry of `order` (N,) int64 occurs before that entry: (N,) int64."""
    by_value = np.argsort(order, kind="stable")
    values, places = order[by_value], np.arange(len(order))
    first = np.maximum.accumulate(np.where(np.diff(values, prepend=-1) != 0, places, 0))
    result = np.empty_like(order)
    result[by_value] = places - first
    return result
