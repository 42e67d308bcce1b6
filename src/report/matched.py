"""The boxes of an evaluation, each with what it was matched with."""
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from src.evaluation.boxes import Boxes
from src.evaluation.coco import Evaluation
from src.evaluation.confusion import match_any_class
from src.evaluation.error_analysis import by_image, classify, image_costs
from src.evaluation.f1 import F1Curve, f1_curves


class Matched(NamedTuple):
    """Ground truth in the order of images; detections likewise, within an image by falling score."""
    ground_truth: Boxes
    detections: Boxes
    kinds: np.ndarray        # (n,) int, indices of DETECTION_KINDS
    partners: np.ndarray     # (n,) int, the row of the ground truth that this kind speaks of, -1 for none
    places: np.ndarray       # (n,) int, the row that the confusion matrix has the detection at, -1 for the background
    curves: list[F1Curve]    # by class, and of all classes together

    @property
    def threshold(self) -> float:
        """The score from which on F1 of all classes together is highest; 0 without detections."""
        best = self.curves[-1].best_score
        return best if math.isfinite(best) else 0.0

    def costs(self, num_images: int) -> np.ndarray:
        """(num_images,) float64, see `image_costs`, at the best threshold."""
        return image_costs(self.ground_truth, self.detections, self.kinds, self.partners, self.threshold, num_images)


def match_boxes(evaluation: Evaluation) -> Matched:
    """Match the boxes of an evaluation."""
    ground_truth, detections = by_image(evaluation.ground_truth, evaluation.detections)
    kinds, partners = classify(ground_truth, detections)
    return Matched(ground_truth, detections, kinds, partners, match_any_class(ground_truth, detections, kinds),
                   f1_curves(ground_truth, detections, kinds, len(evaluation.class_names)))
