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


def write_analysis(folder: str, evaluation: Evaluation, fonts: Sequence[str] = ()) -> dict:
    """Draw <folder>/precision_recall.png and <folder>/errors.png, and return the result of `error_breakdown`.

    The folder is created if it does not exist. An image that cannot be written is logged as an error. `fonts` are needed for
    class names with non-ASCII characters.

    Raises:
        UserError: the folder cannot be created.
    """
    errors = error_breakdown(evaluation.ground_truth, evaluation.detections, evaluation.class_names)
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


def error_breakdown(ground_truth: Boxes, detections: Boxes, class_names: list[str]) -> dict:
    """Count the kinds of errors on all images. `class_names` are in the order of category indices.

    Returns:
        dict with `score_threshold` (float, or None without detections), `detections` {kind: number} without ignored ones,
        `ground_truth` {outcome: number}, and `per_class` {name: {"detections": ..., "ground_truth": ...}}, where a
        detection counts for its predicted class.
    """
    ground_truth, detections = sort_by_image(ground_truth, detections)
    kinds, tide_match, _ = classify(ground_truth, detections)
    counted = ~ground_truth.crowd
    threshold = best_threshold(detections.score, kinds, np.count_nonzero(counted))
    kept = detections.score >= threshold
    outcomes = truth_outcomes(kinds[kept], tide_match[kept], len(counted))[counted]
    by_kind = _count(kinds[kept], detections.category[kept], len(class_names), len(DETECTION_KINDS))[:, :IGNORED]
    by_outcome = _count(outcomes, ground_truth.category[counted], len(class_names), len(TRUTH_OUTCOMES))
    return {"score_threshold": float(threshold) if len(kept) else None, **_named(by_kind.sum(0), by_outcome.sum(0)),
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


def classify(ground_truth: Boxes, detections: Boxes, threshold: float = FOREGROUND_IOU) -> tuple[np.ndarray, ...]:
    """Return the kind of each detection, and the ground truth that it belongs to.

    Args:
        ground_truth, detections: boxes from `sort_by_image`.
        threshold: the IoU that replaces 0.5 in the definitions of the kinds.

    Returns:
        kinds (n,) int, indices of DETECTION_KINDS; (n,) int, the row of the ground truth that each detection is matched or
        confused with, or -1; and (n,) int, the row matched for the confusion matrix, or -1: each detection that is not ignored
        is matched, by descending score, with the unmatched box of its image with the highest IoU, except crowd boxes.
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
    return kinds, tide_match, confusion_match


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


def best_threshold(score: np.ndarray, kinds: np.ndarray, positives: int) -> float:
    """Return the score threshold with the highest F1, or infinity without detections.

    Args:
        score: (n,), scores of the detections.
        kinds: (n,) int, kinds of the detections.
        positives: number of boxes to find.
    """
    order = np.argsort(-score, kind="stable")
    score, kinds = score[order], kinds[order]
    last_of_score = np.append(score[1:] != score[:-1], True)[:len(score)]
    correct, counted = np.cumsum(kinds == CORRECT), np.cumsum(kinds != IGNORED)
    f1 = np.where(last_of_score, 2 * correct / np.maximum(counted + positives, 1), -1.0)
    # Ties take the lowest score, so that all errors are counted if nothing is correct.
    return score[len(f1) - 1 - f1[::-1].argmax()] if len(score) else np.inf


def truth_outcomes(kinds: np.ndarray, tide_match: np.ndarray, count: int) -> np.ndarray:
    """Return the outcome of each of the `count` ground truth boxes, (count,) int, indices of TRUTH_OUTCOMES. `kinds` and
    `tide_match` are the results of `classify` for the detections that count."""
    outcomes = np.full(count, MISSED)
    # The strongest explanation comes last and overwrites weaker ones.
    for kind, outcome in ((CLASS, WRONG_CLASS), (LOCALISATION, BADLY_LOCALISED), (CORRECT, FOUND)):
        outcomes[tide_match[kinds == kind]] = outcome
    return outcomes


def image_costs(ground_truth: Boxes, detections: Boxes, kinds: np.ndarray, tide_match: np.ndarray, threshold: float,
                num_images: int) -> np.ndarray:
    """Return a cost for each image, (num_images,) float64: the sum of its false detections' scores, plus 1 per missed box.

    Detections at or above `threshold` count; crowd boxes do not. `kinds` and `tide_match` are the results of `classify`. Reports
    show the images with the highest cost first.
    """
    kept = detections.score >= threshold
    false = kept & (kinds != CORRECT) & (kinds != IGNORED)
    lost = (truth_outcomes(kinds[kept], tide_match[kept], len(ground_truth.crowd)) != FOUND) & ~ground_truth.crowd
    return (np.bincount(detections.image[false], detections.score[false], num_images)
            + np.bincount(ground_truth.image[lost], minlength=num_images))
