"""An array version of COCOeval's evaluate() and accumulate() for boxes. Its numbers are bit-identical, and it is faster.

COCOeval loops in Python over every image, class, area range, IoU threshold and box. This module matches a detection in all area
ranges and at all thresholds at once, and skips detections without sufficient overlap. For 5,000 images with 100 detections each,
COCOeval takes 6 to 10 times as long. faster-coco-eval (1.7.2, 1.8.0) takes 1.7 times as long, and its precision differs from
COCOeval's in the last bit.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pycocotools import mask
from pycocotools.cocoeval import Params


class Boxes(NamedTuple):
    """Ground truth or detections of all images, with one row per box.

    Images and categories are stored as indices into their sorted ids, the order in which pycocotools processes them.
    """
    image: np.ndarray     # (n,) int64
    category: np.ndarray  # (n,) int64
    xywh: np.ndarray      # (n, 4) float64, pixels of the original image
    area: np.ndarray      # (n,) float64
    score: np.ndarray     # (n,) float64; zeros for ground truth
    crowd: np.ndarray     # (n,) bool; False for detections

    def select(self, rows: np.ndarray) -> Boxes:
        """Return the given rows, (m,) int, in that order."""
        return Boxes(*(column[rows] for column in self))

    def sorted(self) -> Boxes:
        """Return the rows sorted by category, image and descending score. The sort is stable."""
        return self.select(np.lexsort((-self.score, self.image, self.category)))

    def groups(self) -> dict:
        """Return {(category, image): slice of its rows}. The rows must be sorted."""
        pairs = np.stack([self.category, self.image], axis=1)
        edges = [0, *np.flatnonzero((pairs[1:] != pairs[:-1]).any(axis=1)) + 1, len(pairs)]
        return {tuple(pairs[start].tolist()): slice(start, end) for start, end in zip(edges, edges[1:]) if end > start}


def precision_and_recall(ground_truth: Boxes, detections: Boxes, num_categories: int,
                         params: Params) -> tuple[np.ndarray, np.ndarray]:
    """Return the precision at each recall threshold, and the recall of all detections.

    Args:
        ground_truth: boxes to find.
        detections: boxes with scores.
        num_categories: K.
        params: iouThrs (T), recThrs (R), areaRng (A) and maxDets (M, ascending) are used.

    Returns:
        precision (T, R, K, A, M) and recall (T, K, A, M) float64, -1 without ground truth.
    """
    ground_truth, detections = ground_truth.sorted(), detections.sorted()
    groups, detection_groups = ground_truth.groups(), detections.groups()
    rank = np.arange(len(detections.score))  # within an image and class
    for rows in detection_groups.values():
        rank[rows] -= rows.start
    ignored_truth = _outside(ground_truth.area, params.areaRng) | ground_truth.crowd
    matched = np.zeros((len(params.areaRng), len(params.iouThrs), len(rank)), bool)
    ignored = np.zeros_like(matched)
    for key in groups.keys() & detection_groups.keys():
        truth_rows, rows = groups[key], detection_groups[key]
        crowd = ground_truth.crowd[truth_rows]
        iou = mask.iou(detections.xywh[rows], ground_truth.xywh[truth_rows], crowd)
        matches = match(iou, ignored_truth[:, truth_rows], crowd, params.iouThrs)
        matched[..., rows] = matches >= 0
        ignored[..., rows] = np.take_along_axis(ignored_truth[:, None, truth_rows], matches, axis=2) & (matches >= 0)
    ignored |= ~matched & _outside(detections.area, params.areaRng)[:, None]

    shape = (num_categories, len(params.areaRng), len(params.maxDets))
    precision = -np.ones((len(params.iouThrs), len(params.recThrs), *shape))
    recall = -np.ones((len(params.iouThrs), *shape))
    for k in range(num_categories):
        truth_rows = slice(*np.searchsorted(ground_truth.category, (k, k + 1)))
        positives = np.count_nonzero(~ignored_truth[:, truth_rows], axis=1)
        first, last = np.searchsorted(detections.category, (k, k + 1))
        order = first + np.argsort(-detections.score[first:last], kind="stable")
        for m, limit in enumerate(params.maxDets):
            best = order[rank[order] < limit]
            for a in np.flatnonzero(positives):
                precision[:, :, k, a, m], recall[:, k, a, m] = _curve(
                    matched[a][:, best], ignored[a][:, best], positives[a], params.recThrs)
    return precision, recall


def match(iou: np.ndarray, ignored: np.ndarray, crowd: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Match the detections of one image with its ground truth.

    In order, each detection is matched with the unmatched ground truth of the highest IoU; ties take the last. Crowd boxes can be
    matched several times. An ignored box is matched only if no other box can be matched.

    Args:
        iou: (D, G) float64, detections by descending score.
        ignored: (A, G) bool, whether an area range ignores a ground truth box.
        crowd: (G,) bool, whether a ground truth box is a crowd box.
        thresholds: (T,), lowest IoU of a match.

    Returns:
        (A, T, D) int64, index of the matched ground truth, or -1.
    """
    # The order is reversed, because argmax returns the first of equal values.
    iou, ignored, crowd = iou[:, ::-1], ignored[:, None, ::-1], crowd[::-1]
    thresholds = thresholds[:, None]
    matches = np.full((len(ignored), len(thresholds), len(iou)), -1)
    available = np.ones((*matches.shape[:2], len(crowd)), bool)
    for d in np.flatnonzero(iou.max(axis=1) >= thresholds.min()):
        candidates = available & (iou[d] >= thresholds)
        counted = candidates & ~ignored
        candidates = np.where(counted.any(axis=2, keepdims=True), counted, candidates)
        a, t = np.nonzero(candidates.any(axis=2))
        best = np.where(candidates, iou[d], -1.0).argmax(axis=2)[a, t]
        matches[a, t, d] = len(crowd) - 1 - best
        available[a, t, best] = crowd[best]
    return matches


def _outside(area, ranges):
    """Return whether each area is outside each range, (A, n) bool."""
    low, high = np.asarray(ranges, np.float64).T[..., None]
    return (area < low) | (area > high)


def _curve(matched, ignored, positives, recall_thresholds):
    """Return precision (T, R) at the recall thresholds and final recall (T,) of one class.

    matched, ignored: (T, n) bool, detections by descending score; positives: number of boxes to find.
    """
    precision = np.zeros((len(matched), len(recall_thresholds)))
    if not matched.shape[1]:
        return precision, 0.0
    true_positives = np.cumsum(matched & ~ignored, axis=1).astype(np.float64)
    false_positives = np.cumsum(~matched & ~ignored, axis=1)
    recall = true_positives / positives
    # COCOeval's formula and order of operations. Then precision is made monotonic: none is lower than at a higher recall.
    envelope = true_positives / (false_positives + true_positives + np.spacing(1))
    envelope = np.maximum.accumulate(envelope[:, ::-1], axis=1)[:, ::-1]
    for t, row in enumerate(recall):
        index = np.searchsorted(row, recall_thresholds, side="left")
        reached = index < len(row)
        precision[t, reached] = envelope[t, index[reached]]
    return precision, recall[:, -1]
