"""F1 as a function of the score threshold, for each class and for all classes together."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from src.evaluation.boxes import Boxes
from src.evaluation.error_analysis import CORRECT, IGNORED, best_threshold

THRESHOLDS = np.linspace(0, 1, 101)


class F1Curve(NamedTuple):
    """F1 = 2 correct / (detections + ground truth), counted as in `src.evaluation.error_analysis`."""
    f1: np.ndarray         # (101,) float64, F1 at each of THRESHOLDS
    best_score: float      # threshold with the highest F1, a detection's score; infinity without detections
    best_f1: float         # F1 at best_score


def f1_curves(ground_truth: Boxes, detections: Boxes, kinds: np.ndarray, num_classes: int) -> list[F1Curve]:
    """Return the curve of each class, followed by the curve of all classes together.

    Args:
        ground_truth: all annotated boxes.
        detections: all detections; `kinds` (n,) int are their kinds.
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
