"""The kinds of errors that a detector makes, after TIDE (Bolya et al. 2020, arXiv:2008.08115).

As in COCO's evaluation, detections are matched with ground truth at an IoU of 0.5, per image and class, in descending order of
score (`src.evaluation.matching.match`). A detection matched with a crowd box is ignored. Each other detection is

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
classes. Matching is in descending order of score, so the threshold does not change the kinds of the detections above it.
"""
from __future__ import annotations

import numpy as np
from pycocotools import mask

from src.evaluation.boxes import Boxes
from src.evaluation.matching import match

FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1
DETECTION_KINDS = ("correct", "localisation", "class", "duplicate", "both", "background", "ignored")
CORRECT, LOCALISATION, CLASS, DUPLICATE, BOTH, BACKGROUND, IGNORED = range(len(DETECTION_KINDS))
TRUTH_OUTCOMES = ("found", "localisation", "class", "missed")
FOUND, BADLY_LOCALISED, WRONG_CLASS, MISSED = range(len(TRUTH_OUTCOMES))


def error_breakdown(ground_truth: Boxes, detections: Boxes, class_names: list[str]) -> dict:
    """Count the kinds of errors on all images. `class_names` are in the order of category indices.

    Returns:
        dict with `score_threshold` (float, or None without detections), `detections` {kind: number} without ignored ones,
        `ground_truth` {outcome: number}, and `per_class` {name: {"detections": ..., "ground_truth": ...}}, where a
        detection counts for its predicted class.
    """
    ground_truth, detections = by_image(ground_truth, detections)
    kinds, partners = classify(ground_truth, detections)
    counted = ~ground_truth.crowd
    threshold = best_threshold(detections.score, kinds, np.count_nonzero(counted))
    kept = detections.score >= threshold
    outcomes = truth_outcomes(kinds[kept], partners[kept], len(counted))[counted]
    by_kind = _count(kinds[kept], detections.category[kept], len(class_names), len(DETECTION_KINDS))[:, :IGNORED]
    by_outcome = _count(outcomes, ground_truth.category[counted], len(class_names), len(TRUTH_OUTCOMES))
    return {"score_threshold": float(threshold) if len(kept) else None, **_named(by_kind.sum(0), by_outcome.sum(0)),
            "per_class": {name: _named(*rows) for name, *rows in zip(class_names, by_kind, by_outcome)}}


def by_image(ground_truth: Boxes, detections: Boxes) -> tuple[Boxes, Boxes]:
    """Return both sorted by image, the detections of an image by descending score."""
    return (ground_truth.select(np.argsort(ground_truth.image, kind="stable")),
            detections.select(np.lexsort((-detections.score, detections.image))))


def classify(ground_truth: Boxes, detections: Boxes) -> tuple[np.ndarray, np.ndarray]:
    """Return the kind of each detection, and the ground truth that it belongs to.

    Args:
        ground_truth: boxes sorted by image.
        detections: sorted by image, then by descending score.

    Returns:
        kinds (n,) int, indices of DETECTION_KINDS, and (n,) int, the row of the ground truth that each detection is matched
        or confused with, or -1.
    """
    kinds, partners = np.full(len(detections.score), BACKGROUND), np.full(len(detections.score), -1)
    for image in np.unique(detections.image):
        rows = slice(*np.searchsorted(detections.image, (image, image + 1)))
        first, last = np.searchsorted(ground_truth.image, (image, image + 1))
        if last > first:
            crowd = ground_truth.crowd[first:last]
            iou = mask.iou(detections.xywh[rows], ground_truth.xywh[first:last], crowd)
            same = detections.category[rows, None] == ground_truth.category[first:last]
            kinds[rows], partner = _classify_image(iou, same, crowd)
            partners[rows] = np.where(partner < 0, -1, first + partner)
    return kinds, partners


def _classify_image(iou, same, crowd):
    """Return kinds (D,) and partners (D,) of one image's detections.

    iou: (D, G), by descending score; same: (D, G) bool, whether the classes are equal; crowd: (G,) bool.
    """
    matches = match(np.where(same, iou, -1.0), crowd[None], crowd, np.array([FOREGROUND_IOU]))[0, 0]
    own, other = np.where(same & ~crowd, iou, -1.0), np.where(same | crowd, -1.0, iou)
    best_own, best_other = own.max(axis=1), other.max(axis=1)
    kinds = np.select(
        [(matches >= 0) & crowd[matches], matches >= 0, (best_own >= BACKGROUND_IOU) & (best_own < FOREGROUND_IOU),
         best_other >= FOREGROUND_IOU, best_own >= FOREGROUND_IOU, np.maximum(best_own, best_other) < BACKGROUND_IOU],
        [IGNORED, CORRECT, LOCALISATION, CLASS, DUPLICATE, BACKGROUND], BOTH)
    partners = np.select([kinds == CORRECT, kinds == LOCALISATION, kinds == CLASS], [matches, own.argmax(1), other.argmax(1)], -1)
    return kinds, partners


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


def truth_outcomes(kinds: np.ndarray, partners: np.ndarray, count: int) -> np.ndarray:
    """Return the outcome of each of the `count` ground truth boxes, (count,) int, indices of TRUTH_OUTCOMES. `kinds` and
    `partners` are the results of `classify` for the detections that count."""
    outcomes = np.full(count, MISSED)
    # The strongest explanation comes last and overwrites weaker ones.
    for kind, outcome in ((CLASS, WRONG_CLASS), (LOCALISATION, BADLY_LOCALISED), (CORRECT, FOUND)):
        outcomes[partners[kinds == kind]] = outcome
    return outcomes


def _count(kinds, category, num_categories, num_kinds):
    """Return the number of each kind in each category, (num_categories, num_kinds)."""
    return np.bincount(category * num_kinds + kinds, minlength=num_categories * num_kinds).reshape(num_categories, num_kinds)


def _named(by_kind, by_outcome):
    return {"detections": dict(zip(DETECTION_KINDS, by_kind.tolist())),
            "ground_truth": dict(zip(TRUTH_OUTCOMES, by_outcome.tolist()))}


def image_costs(ground_truth: Boxes, detections: Boxes, kinds: np.ndarray, partners: np.ndarray, threshold: float,
                num_images: int) -> np.ndarray:
    """Return a cost for each image, (num_images,) float64: the sum of its false detections' scores, plus 1 per missed box.

    Detections at or above `threshold` count; crowd boxes do not. `kinds` and `partners` are the results of `classify`. Reports
    show the images with the highest cost first.
    """
    kept = detections.score >= threshold
    false = kept & (kinds != CORRECT) & (kinds != IGNORED)
    lost = (truth_outcomes(kinds[kept], partners[kept], len(ground_truth.crowd)) != FOUND) & ~ground_truth.crowd
    return (np.bincount(detections.image[false], detections.score[false], num_images)
            + np.bincount(ground_truth.image[lost], minlength=num_images))
