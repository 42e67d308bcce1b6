"""F1 over the score threshold, of each class and of all together."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from src.evaluation.boxes import Boxes
from src.evaluation.error_analysis import CORRECT, IGNORED, best_threshold

THRESHOLDS = np.linspace(0, 1, 101)


class F1Curve(NamedTuple):
    """F1 = 2 correct / (detections + ground truth), as `src.evaluation.error_analysis` counts them."""
    f1: np.ndarray         # (101,) float64, of the detections with a score of at least THRESHOLDS
    best_score: float      # of a detection, from which on F1 is highest; infinity without detections
    best_f1: float         # the F1 there


def f1_curves(ground_truth: Boxes, detections: Boxes, kinds: np.ndarray, num_classes: int) -> list[F1Curve]:
    """The curve of each class, and last that of all classes together.

    Args:
        ground_truth: all boxes.
        detections: with the kinds `kinds`, (n,) int.
        num_classes: K.
    """
    truth = ground_truth.category[~ground_truth.crowd]
    order = np.argsort(detections.category, kind="stable")
    edges = np.searchsorted(detections.category[order], np.arange(num_classes + 1))
    parts = [(order[edges[k]:edges[k + 1]], np.count_nonzero(truth == k)) for k in range(num_classes)]
    parts.append((order, len(truth)))
    return [_curve(detections.score[rows], kinds[rows], positives) for rows, positives in parts]


def _curve(score, kinds, positives):
    correct, counted = np.sort(score[kinds == CORRECT]), np.sort(score[kinds != IGNORED])

    def f1(thresholds):
        hits, found = (len(scores) - np.searchsorted(scores, thresholds) for scores in (correct, counted))
        return 2 * hits / np.maximum(found + positives, 1)

    best = best_threshold(score, kinds, positives)
    return F1Curve(f1(THRESHOLDS), float(best), float(f1(best)))
