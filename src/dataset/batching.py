"""Which records make up which batch: the images of a batch have one canvas."""
from __future__ import annotations

import numpy as np

from src.dataset.repetition import draw_repeats

# The second number of a seed, one per purpose; src/dataset/shapes.py has 0 and 1. NumPy fills a seed up with zeros.
EPOCH_ORDER, AUGMENTATION, SAMPLING = 2, 3, 4


def epoch_order(seed: int, epoch: int, factors: np.ndarray, canvas_of: np.ndarray) -> np.ndarray:
    """The records of an epoch in the order in which they are drawn, int64: a permutation of them, in which those with a factor
    above 1 are repeated, see `draw_repeats`."""
    rng = np.random.default_rng([seed, EPOCH_ORDER, epoch])
    records = np.arange(len(factors))
    if (factors > 1).any():
        records = np.repeat(records, draw_repeats(factors, canvas_of, rng.random()))
    return rng.permutation(records)


def one_canvas_batches(order: np.ndarray, canvas_of: np.ndarray, size: int, fill: bool) -> list[np.ndarray]:
    """Cut records into batches of one canvas each, which come in the order of their first records.

    Args:
        order: (N,) int64 records, in the order in which they are taken.
        canvas_of: number of the canvas of each record.
        size: of a batch.
        fill: fill up the last batch of a canvas with the first records of that canvas; otherwise it may have fewer.

    Returns:
        The records of each batch, (size,) int64 or fewer.
    """
    canvases, batches = canvas_of[order], []
    for canvas in np.unique(canvases):
        places = np.flatnonzero(canvases == canvas)
        if fill:
            places = np.resize(places, -(-len(places) // size) * size)  # which repeats them from the first on
        batches += [places[start:start + size] for start in range(0, len(places), size)]
    return [order[places] for places in sorted(batches, key=lambda places: places[0])]
