"""What the errors of each image cost: the order in which people look at images."""
from __future__ import annotations

import numpy as np

from src.evaluation.boxes import Boxes
from src.evaluation.error_analysis import CORRECT, FOUND, IGNORED, truth_outcomes


def image_costs(ground_truth: Boxes, detections: Boxes, kinds: np.ndarray, partners: np.ndarray, threshold: float,
                num_images: int) -> np.ndarray:
    """(num_images,) float64: the sum of the scores of an image's false detections, and 1 for each box that was not found.

    Detections with a score of at least `threshold` count, and boxes that are no crowd. `kinds` and `partners` are what
    `src.evaluation.error_analysis.classify` gives.
    """
    kept = detections.score >= threshold
    false = kept & (kinds != CORRECT) & (kinds != IGNORED)
    lost = (truth_outcomes(kinds[kept], partners[kept], len(ground_truth.crowd)) != FOUND) & ~ground_truth.crowd
    return (np.bincount(detections.image[false], detections.score[false], num_images)
            + np.bincount(ground_truth.image[lost], minlength=num_images))
