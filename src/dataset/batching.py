"""Assigns records to batches. All images of a batch use the same canvas."""
from __future__ import annotations

import numpy as np

from src.dataset.repetition import draw_repeats

# The second number of each seed, one per purpose; src/dataset/shapes.py uses 0 and 1. NumPy pads seeds with zeros.
EPOCH_ORDER, AUGMENTATION, SAMPLING = 2, 3, 4


def epoch_order(seed: int, epoch: int, factors: np.ndarray, canvas_of: np.ndarray) -> np.ndarray:
    """Return the records of an epoch in random order, int64. Records with a factor above 1 may occur several times,
    see `draw_repeats`."""
    rng = np.random.default_rng([seed, EPOCH_ORDER, epoch])
    records = np.arange(len(factors))
    if (factors > 1).any():
        records = np.repeat(records, draw_repeats(factors, canvas_of, rng.random()))
    return rng.permutation(records)


def one_canvas_batches(order: np.ndarray, canvas_of: np.ndarray, size: int, fill: bool) -> list[np.ndarray]:
    """Split records into batches with one canvas each. Batches are sorted by the position of their first record.

    Args:
        order: (N,) int64 record numbers, in the order in which they are used.
        canvas_of: canvas index of each record.
        size: batch size.
        fill: whether to pad the last batch of each canvas with the first records of that canvas; otherwise it may be smaller.

    Returns:
        The records of each batch, (size,) int64 or shorter.
    """
    canvases, batches = canvas_of[order], []
    for canvas in np.unique(canvases):
        places = np.flatnonzero(canvases == canvas)
        if fill:
            places = np.resize(places, -(-len(places) // size) * size)  # repeats them from the start
        batches += [places[start:start + size] for start in range(0, len(places), size)]
    return [order[places] for places in sorted(batches, key=lambda places: places[0])]
