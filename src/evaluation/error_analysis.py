"""What kinds of errors a detector makes, after TIDE (Bolya et al. 2020, arXiv:2008.08115).

Detections are matched with ground truth at an IoU of 0.5 as in COCO's evaluation, image by image and class by class, by falling
score (`src.evaluation.matching.match`). A detection matched with a crowd is ignored. Every other detection is

- correct, if it is matched; otherwise the first of these that holds, in the order of TIDE's own program:
- localisation: 0.1 <= highest IoU < 0.5 with ground truth of its own class;
- class: IoU >= 0.5 with ground truth of another class;
- duplicate: IoU >= 0.5 with ground truth of its own class that a better detection is matched with;
- background: IoU < 0.1 with all ground truth;
- both, localisation and class: what remains, so IoU from 0.1 to 0.5 with ground truth of other classes alone.

Every box of the ground truth that is no crowd is

- found, if a detection is matched with it; otherwise
- localisation, if it is the closest of its class to a detection with that error; otherwise
- class, if it is the closest of another class to a detection with that error; otherwise
- missed: no detection explains it.

Only detections from a score threshold on count: the one with the highest F1 = 2 correct / (detections + ground truth) over all
classes. As each detection is matched before those of lower scores, the threshold does not change the kinds of those above it.
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
    """Count the kinds of errors on all images; class_names: by category index.

    Returns:
        dict: `score_threshold` (float, None without detections), `detections` {kind: number} without the ignored ones,
        `ground_truth` {outcome: number}, and `per_class` {name: {"detections": ..., "ground_truth": ...}}, where a
        detection counts for the class that it predicts.
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
    """Both in the order of images, the detections of an image by falling score."""
    return (ground_truth.select(np.argsort(ground_truth.image, kind="stable")),
            detections.select(np.lexsort((-detections.score, detections.image))))


def classify(ground_truth: Boxes, detections: Boxes) -> tuple[np.ndarray, np.ndarray]:
    """The kind of each detection.

    Args:
        ground_truth: in the order of images.
        detections: in the order of images, within an image by falling score.

    Returns:
        kinds (n,) int, indices of DETECTION_KINDS, and (n,) int, the row of the ground truth that a detection is matched or
        confused with, -1 for none.
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
    """Kinds (D,) and partners (D,) of one image's detections.

    iou: (D, G) by falling score; same: (D, G) bool, whether the classes are the same; crowd: (G,) bool.
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
    """The score from which on F1 is highest; infinity without detections.

    Args:
        score: (n,) of detections.
        kinds: (n,) int, their kinds.
        positives: the number of boxes to find.
    """
    order = np.argsort(-score, kind="stable")
    score, kinds = score[order], kinds[order]
    last_of_score = np.append(score[1:] != score[:-1], True)[:len(score)]
    correct, counted = np.cumsum(kinds == CORRECT), np.cumsum(kinds != IGNORED)
    f1 = np.where(last_of_score, 2 * correct / np.maximum(counted + positives, 1), -1.0)
    # Of equal ones the lowest score: where nothing is correct, all errors are counted.
    return score[len(f1) - 1 - f1[::-1].argmax()] if len(score) else np.inf


def truth_outcomes(kinds: np.ndarray, partners: np.ndarray, count: int) -> np.ndarray:
    """The outcome of each of `count` boxes of the ground truth, (count,) int, indices of TRUTH_OUTCOMES, for the kinds and
    partners that `classify` gives of the detections that count."""
    outcomes = np.full(count, MISSED)
    # The strongest explanation last, as it overwrites the others.
    for kind, outcome in ((CLASS, WRONG_CLASS), (LOCALISATION, BADLY_LOCALISED), (CORRECT, FOUND)):
        outcomes[partners[kinds == kind]] = outcome
    return outcomes


def _count(kinds, category, num_categories, num_kinds):
    """(num_categories, num_kinds): how many of each kind a category has."""
    return np.bincount(category * num_kinds + kinds, minlength=num_categories * num_kinds).reshape(num_categories, num_kinds)


def _named(by_kind, by_outcome):
    return {"detections": dict(zip(DETECTION_KINDS, by_kind.tolist())),
            "ground_truth": dict(zip(TRUTH_OUTCOMES, by_outcome.tolist()))}


def image_costs(ground_truth: Boxes, detections: Boxes, kinds: np.ndarray, partners: np.ndarray, threshold: float,
                num_images: int) -> np.ndarray:
    """(num_images,) float64: the sum of the scores of an image's false detections, and 1 for each box that was not found.

    Detections with a score of at least `threshold` count, and boxes that are no crowd. `kinds` and `partners` are the results of
    `classify`. People look at images in this order.
    """
    kept = detections.score >= threshold
    false = kept & (kinds != CORRECT) & (kinds != IGNORED)
    lost = (truth_outcomes(kinds[kept], partners[kept], len(ground_truth.crowd)) != FOUND) & ~ground_truth.crowd
    return (np.bincount(detections.image[false], detections.score[false], num_images)
            + np.bincount(ground_truth.image[lost], minlength=num_images))
