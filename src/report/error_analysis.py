"""Analysis of an evaluation: kinds of errors, class confusions, F1, and precision-recall curves.

The kinds of errors are defined as in TIDE (Bolya et al. 2020, arXiv:2008.08115). As in COCO's evaluation, detections are matched
with ground truth at an IoU of 0.5, per image and class, in descending order of score (`_match`). A detection matched with a crowd
box is ignored. Each other detection is

- correct, if it is matched; otherwise the first kind that applies, in the order of TIDE's code:
- localisation: 0.1 <= highest IoU < 0.5 with ground truth of the same class;
- class: IoU >= 0.5 with ground truth of another class;
- duplicate: IoU >= 0.5 with ground truth of the same class that is matched with a better detection;
- background: IoU < 0.1 with all ground truth;
- both, localisation and class: all remaining detections, whose IoU is 0.1 to 0.5 only with ground truth of other classes.

Each ground truth box, except crowd boxes, is

- found, if a detection is matched with it; otherwise
- localisation, if it is the closest box of the same class to a detection with that error; otherwise
- class, if it is the closest box of another class to a detection with that error; otherwise
- missed: no detection explains it.

Only detections at or above a score threshold count. The threshold maximises F1 = 2 correct / (detections + ground truth) over all
classes. Matching is in descending order of score, so the threshold does not change the matches of the detections above it.

For the confusion matrix, detections are matched with ground truth of any class. The matrix has one row per annotated class and
one for the background, and one column per detected class and one for the background. A detection is in the row of its matched
box, or in the background row if it has none. An annotated box without a match is in the background column.
"""
from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from faster_coco_eval.core import mask

from src.evaluation.coco import Boxes, Evaluation
from src.run.files import make_folder
from src.visualization.charts import draw_errors, draw_precision_recall
from src.visualization.fonts import fonts_of_charts

logger = logging.getLogger("faster_rcnn")

FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1
DETECTION_KINDS = ("correct", "localisation", "class", "duplicate", "both", "background", "ignored")
CORRECT, LOCALISATION, CLASS, DUPLICATE, BOTH, BACKGROUND, IGNORED = range(len(DETECTION_KINDS))
TRUTH_OUTCOMES = ("found", "localisation", "class", "missed")
FOUND, BADLY_LOCALISED, WRONG_CLASS, MISSED = range(len(TRUTH_OUTCOMES))
SAME_CLASS_FIRST = 1e-9  # added to the IoU with a box of the same class, which breaks ties
RECALLS = np.linspace(0, 1, 101)  # of COCO's precision-recall curves
CURVES = np.s_[[0, 5], :, :, 0, -1]  # curves (2, R, K) at IoU 0.5 and 0.75 of all areas and up to 100 detections, see Evaluation


class Matched(NamedTuple):
    """Boxes from `sort_by_image`, and their matches at one IoU."""
    ground_truth: Boxes
    detections: Boxes
    kinds: np.ndarray            # (n,) int, indices of DETECTION_KINDS
    tide_match: np.ndarray       # (n,) int, row of the ground truth box that explains the kind, or -1
    confusion_match: np.ndarray  # (n,) int, row of the ground truth box matched for the confusion matrix, or -1 (background)

    @property
    def threshold(self) -> float:
        """Return the score threshold with the highest F1 over all classes, or 0 without detections."""
        order = np.argsort(self.detections.score)
        kinds = self.kinds[order]
        scores, first = np.unique(self.detections.score[order], return_index=True)
        correct, counted = (np.cumsum(flags[::-1])[::-1][first] for flags in (kinds == CORRECT, kinds != IGNORED))
        f1 = 2 * correct / np.maximum(counted + np.count_nonzero(~self.ground_truth.crowd), 1)
        # Ties take the lowest score, so that all errors are counted if nothing is correct.
        return float(scores[f1.argmax()]) if len(scores) else 0.0

    def outcomes(self, threshold: float) -> np.ndarray:
        """Return the outcome of each ground truth box at a score threshold, (m,) int, indices of TRUTH_OUTCOMES."""
        outcomes = np.full(len(self.ground_truth.crowd), MISSED)
        # The strongest explanation comes last and overwrites weaker ones.
        for kind, outcome in ((CLASS, WRONG_CLASS), (LOCALISATION, BADLY_LOCALISED), (CORRECT, FOUND)):
            outcomes[self.tide_match[(self.detections.score >= threshold) & (self.kinds == kind)]] = outcome
        return outcomes

    def costs(self, num_images: int, threshold: float) -> np.ndarray:
        """Return a cost for each image, (num_images,) float64: the sum of its false detections' scores, plus 1 per missed box.

        Detections at or above `threshold` count; crowd boxes do not. Reports show the images with the highest cost first.
        """
        image, score = self.detections.image, self.detections.score
        false = (score >= threshold) & (self.kinds != CORRECT) & (self.kinds != IGNORED)
        lost = (self.outcomes(threshold) != FOUND) & ~self.ground_truth.crowd
        return (np.bincount(image[false], score[false], num_images)
                + np.bincount(self.ground_truth.image[lost], minlength=num_images))


def write_analysis(folder: str, evaluation: Evaluation, matched: Matched, fonts: Sequence[str] = ()) -> dict:
    """Draw <folder>/precision_recall.png and <folder>/errors.png, and return the result of `error_breakdown`.

    The folder is created if it does not exist. An image that cannot be written is logged as an error. `matched` has the matches
    at an IoU of 0.5. `fonts` are needed for class names with non-ASCII characters.

    Raises:
        UserError: the folder cannot be created.
    """
    errors = error_breakdown(matched, evaluation.class_names)
    make_folder(folder)
    for name, draw, content in (
            ("precision_recall.png", draw_precision_recall, (RECALLS, evaluation.precision[CURVES], evaluation.class_names)),
            ("errors.png", draw_errors, (errors,))):
        path = os.path.join(folder, name)
        try:
            with fonts_of_charts(fonts):
                draw(path, *content)
        except (ImportError, OSError) as error:
            logger.error("%s could not be drawn (%s)", path, error)
    return errors


def error_breakdown(matched: Matched, class_names: list[str]) -> dict:
    """Count the kinds of errors on all images. `class_names` are in the order of category indices.

    Returns:
        dict with `score_threshold` (float, or None without detections), `detections` {kind: number} without ignored ones,
        `ground_truth` {outcome: number}, and `per_class` {name: {"detections": ..., "ground_truth": ...}}, where a
        detection counts for its predicted class.
    """
    (truth, detections, kinds, *_), threshold, classes = matched, matched.threshold, len(class_names)
    kept, counted = detections.score >= threshold, ~truth.crowd
    by_kind = _count(kinds[kept], detections.category[kept], classes, len(DETECTION_KINDS))[:, :IGNORED]
    by_outcome = _count(matched.outcomes(threshold)[counted], truth.category[counted], classes, len(TRUTH_OUTCOMES))
    return {"score_threshold": threshold if len(kept) else None, **_named(by_kind.sum(0), by_outcome.sum(0)),
            "per_class": {name: _named(*rows) for name, *rows in zip(class_names, by_kind, by_outcome)}}


def _count(kinds, category, num_categories, num_kinds):
    """Return the number of each kind in each category, (num_categories, num_kinds)."""
    return np.bincount(category * num_kinds + kinds, minlength=num_categories * num_kinds).reshape(num_categories, num_kinds)


def _named(by_kind, by_outcome):
    return {"detections": dict(zip(DETECTION_KINDS, by_kind.tolist())),
            "ground_truth": dict(zip(TRUTH_OUTCOMES, by_outcome.tolist()))}


def sort_by_image(ground_truth: Boxes, detections: Boxes) -> tuple[Boxes, Boxes]:
    """Return both sorted by image, and the detections of an image by descending score."""
    return (ground_truth.select(np.argsort(ground_truth.image, kind="stable")),
            detections.select(np.lexsort((-detections.score, detections.image))))


def classify(ground_truth: Boxes, detections: Boxes, threshold: float = FOREGROUND_IOU) -> Matched:
    """Match boxes from `sort_by_image`. `threshold` is the IoU that replaces 0.5 in the definitions of the kinds.

    For the confusion matrix, each detection that is not ignored is matched, by descending score, with the unmatched box of its
    image with the highest IoU, except crowd boxes.
    """
    kinds, tide_match, confusion_match = (np.full(len(detections.score), value) for value in (BACKGROUND, -1, -1))
    for image in np.intersect1d(ground_truth.image, detections.image):
        rows, boxes = (np.arange(*np.searchsorted(each.image, (image, image + 1))) for each in (detections, ground_truth))
        crowd = ground_truth.crowd[boxes]
        iou = mask.iou(detections.xywh[rows], ground_truth.xywh[boxes], crowd.astype(np.uint8))
        same = detections.category[rows, None] == ground_truth.category[boxes]
        matches = _match(np.where(same, iou, -1.0), crowd, threshold)
        own, other = np.where(same & ~crowd, iou, -1.0), np.where(same | crowd, -1.0, iou)
        best_own, best_other = own.max(axis=1), other.max(axis=1)
        kinds[rows] = kind = np.select(
            [(matches >= 0) & crowd[matches], matches >= 0, (best_own >= BACKGROUND_IOU) & (best_own < threshold),
             best_other >= threshold, best_own >= threshold, np.maximum(best_own, best_other) < BACKGROUND_IOU],
            [IGNORED, CORRECT, LOCALISATION, CLASS, DUPLICATE, BACKGROUND], BOTH)
        tide_match[rows] = np.select([kind == CORRECT, kind == LOCALISATION, kind == CLASS],
                                     [boxes[matches], boxes[own.argmax(1)], boxes[other.argmax(1)]], -1)
        any_class = np.where(same & (iou >= threshold), iou + SAME_CLASS_FIRST, iou)
        any_class[(kind == IGNORED)[:, None] | crowd] = -1.0
        matches = _match(any_class, crowd, threshold)
        confusion_match[rows] = np.where(matches >= 0, boxes[matches], -1)
    return Matched(ground_truth, detections, kinds, tide_match, confusion_match)


def _match(iou, crowd, threshold):
    """Match the detections of one image with its ground truth, as COCO's evaluation does at an IoU of `threshold`.

    In order, each detection is matched with the unmatched ground truth of the highest IoU; ties take the last. Crowd boxes can be
    matched several times, but only if no other box can be matched.

    Args:
        iou: (D, G) float64, detections by descending score.
        crowd: (G,) bool.

    Returns:
        (D,) int, index of the matched ground truth, or -1.
    """
    matches, free = np.full(len(iou), -1), np.ones(len(crowd), bool)
    for d in np.flatnonzero(iou.max(axis=1) >= threshold):
        candidates = free & (iou[d] >= threshold)
        candidates = candidates & ~crowd if (candidates & ~crowd).any() else candidates
        if candidates.any():
            matches[d] = best = len(crowd) - 1 - np.where(candidates, iou[d], -1.0)[::-1].argmax()
            free[best] = crowd[best]
    return matches
