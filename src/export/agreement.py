"""Compares the outputs of an exported file with the outputs of the network."""
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from faster_coco_eval.core import mask

from src.detector import Predictor
from src.errors import UserError
from src.export.detector import detect

if TYPE_CHECKING:
    from deploy.detector import Detector

CORNER_TOLERANCE = 0.01  # in pixels, for boxes without area, which have no IoU


class Limits(NamedTuple):
    """Allowed differences between two detectors."""
    box: float  # largest difference of the boxes of counterparts, in pixels; for detections, their lowest IoU, exclusive
    score: float  # largest difference of the scores of counterparts
    alone: float  # share of the rows that may have no counterpart, because rounding orders nearly equal scores


PROPOSALS, DETECTIONS = Limits(1e-2, 1e-4, 0.01), Limits(0.99, 1e-3, 0.01)
INT8_DETECTIONS = Limits(0.7, 0.2, 0.1)  # they differ, but must still be similar


class Agreement(NamedTuple):
    """The differences between the rows of two detectors: their proposals or their detections."""
    box_difference: float  # largest difference of the boxes of two counterparts, in pixels
    score_difference: float  # largest difference of their scores
    alone: int  # number of rows, of both detectors, without a counterpart in the opposite detector
    rows: int  # number of rows of both detectors

    def holds(self, max_alone: float = PROPOSALS.alone) -> bool:
        """Return whether at most a share of `max_alone` of the rows have no counterpart."""
        return self.alone <= max_alone * self.rows

    def __str__(self) -> str:
        differences = f"; boxes differ by up to {self.box_difference:.2g} pixels, scores by up to {self.score_difference:.2g}"
        return (f"{self.rows - self.alone} of {self.rows} rows of both have a counterpart"
                f"{differences if self.alone < self.rows else ''}")


def require(path: str, result: Agreement, limits: Limits,
            advice: str = "try other images with --image, and report it if that fails as well") -> None:
    """Raise a UserError with the advice unless `result`, the comparison of the file `path` with the network, is within limits."""
    if not result.holds(limits.alone):
        box = f"IoU above {limits.box}" if limits.box > 0.5 else f"boxes within {limits.box} pixels"
        raise UserError(f"{path} is not written, because its outputs differ from the network's: {result}; required are "
                        f"counterparts for {1 - limits.alone:.0%} ({box}, scores within {limits.score}); {advice}.")


def agreement(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray],
              tolerances: tuple[float, ...] = PROPOSALS[:2]) -> Agreement:
    """Compare the outputs of two networks for the same images: boxes (B, R, K, 4) in canvas pixels and scores (B, R, K), float32.

    Proposals with nearly equal scores may be swapped. Therefore, a proposal that differs from the proposal at the same index by
    more than the tolerances, of boxes in pixels and of scores, is compared with all proposals of the opposite network.
    """
    # (B, R, K, 5): boxes and scores of each proposal and class.
    own, other = (np.concatenate((boxes, scores[..., None]), axis=3) for boxes, scores in (found, expected))
    return _summary([_of_proposals(*pair, tolerances) for rows in zip(own, other) for pair in (rows, rows[::-1])])


def compare_detections(detector: Detector, predictor: Predictor, batches: list[np.ndarray],
                       limits: Limits = DETECTIONS) -> Agreement:
    """Compare the detections of an exported file with the network's, for batches of images, (B, h, w, 3) uint8 each. The
    configuration of `predictor` provides the thresholds."""
    infer, differences = predictor.cfg.infer, []
    for images in batches:
        found = detector.detect(images if len(images) > 1 else images[0], infer.conf_threshold)
        rows = found[3] if len(images) > 1 else np.zeros(len(found[0]))
        for number, image in enumerate(images):
            own, other = [column[rows == number] for column in found[:3]], detect(predictor, np.ascontiguousarray(image))[:3]
            differences += [_of_detections(own, other, infer, limits), _of_detections(other, own, infer, limits)]
    return _summary(differences)


def _summary(parts):
    """Return the Agreement for a list of differences of rows, (n, 2): box and score, NaN for a row without a counterpart."""
    differences = np.concatenate(parts)
    met = differences[~np.isnan(differences).any(axis=1)]
    box, score = met.max(axis=0, initial=0).tolist()
    return Agreement(box, score, len(differences) - len(met), len(differences))


def _of_proposals(first, second, tolerances):
    """Return the differences (R, 2) of the rows of `first` and their counterparts in `second`, (R, K, 5) each."""
    differences = _largest(first, second)
    for row in np.flatnonzero(~(differences <= tolerances).all(axis=1)):  # also NaN and infinity
        to_all = _largest(first[row], second)
        differences[row] = to_all[np.nan_to_num((to_all / tolerances).max(axis=1), nan=np.inf).argmin()]
    differences[~(differences <= tolerances).all(axis=1)] = np.nan
    return differences


def _largest(rows, others):
    """Return the largest difference of boxes and of scores, (R, 2), between rows (R, K, 5)."""
    distances = np.abs(rows - others).max(axis=1)
    return np.stack((distances[:, :4].max(axis=1), distances[:, 4]), axis=1)


def _of_detections(first, second, infer, limits):
    """Return the differences (n, 2) of the detections of `first` that need a counterpart in `second`.

    Rounding may move a score across the threshold, or across the last score of a full list. Such detections need no counterpart.
    """
    lowest = max([infer.conf_threshold, *(part[1].min() for part in (first, second) if 0 < len(part[1]) == infer.max_box_num)])
    boxes, scores, labels = (part[first[1] > lowest + limits.score] for part in first)
    if not len(boxes) or not len(second[0]):
        return np.full((len(boxes), 2), np.nan)
    distances = np.abs(boxes[:, None] - second[0]).max(axis=2)
    xywh = [np.concatenate((part[:, :2], part[:, 2:] - part[:, :2]), axis=1).astype(np.float64) for part in (boxes, second[0])]
    differences = np.abs(scores[:, None] - second[1])
    overlap = (distances <= CORNER_TOLERANCE) | (mask.iou(*xywh, np.zeros(len(second[0]), np.uint8)) > limits.box)
    fits = overlap & (differences <= limits.score) & (labels[:, None] == second[2])
    best = np.arange(len(boxes)), np.where(fits, differences, np.inf).argmin(axis=1)
    return np.where(fits[best][:, None], np.stack((distances[best], differences[best]), axis=1), np.nan)
