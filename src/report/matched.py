"""The boxes of an evaluation with their matches."""
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from src.evaluation.coco import Evaluation
from src.evaluation.matching import Boxes
from src.report.error_analysis import F1Curve, classify, f1_curves, image_costs, match_any_class, sort_by_image


class Matched(NamedTuple):
    """Ground truth sorted by image, and detections sorted by image and descending score."""
    ground_truth: Boxes
    detections: Boxes
    kinds: np.ndarray        # (n,) int, indices of DETECTION_KINDS
    tide_match: np.ndarray   # (n,) int, row of the ground truth box that explains the kind, or -1
    confusion_match: np.ndarray  # (n,) int, row of the ground truth box matched for the confusion matrix, or -1 (background)
    curves: list[F1Curve]    # for each class, then for all classes together

    @property
    def threshold(self) -> float:
        """Return the score threshold with the highest F1 over all classes, or 0 without detections."""
        best = self.curves[-1].best_score
        return best if math.isfinite(best) else 0.0

    def costs(self, num_images: int) -> np.ndarray:
        """Return `image_costs` at the best threshold, (num_images,) float64."""
        return image_costs(self.ground_truth, self.detections, self.kinds, self.tide_match, self.threshold, num_images)


def match_boxes(evaluation: Evaluation) -> Matched:
    """Match the detections of an evaluation with its ground truth."""
    ground_truth, detections = sort_by_image(evaluation.ground_truth, evaluation.detections)
    kinds, tide_match = classify(ground_truth, detections)
    return Matched(ground_truth, detections, kinds, tide_match, match_any_class(ground_truth, detections, kinds),
                   f1_curves(ground_truth, detections, kinds, len(evaluation.class_names)))
