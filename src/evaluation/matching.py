"""pycocotools' evaluation of boxes on arrays: its numbers to the last bit, in a fraction of its time.

COCOeval goes in Python through every image, class, area range, IoU threshold and box. Here the area ranges and thresholds
of a detection are matched at once, and only detections that overlap ground truth enough are looked at.
"""
from typing import NamedTuple

import numpy as np
from pycocotools import mask


class Boxes(NamedTuple):
    """Ground truth or detections of all images, one row a box."""
    image: np.ndarray     # (n,) int64, place of the image in rising order of ids
    category: np.ndarray  # (n,) int64, likewise
    xywh: np.ndarray      # (n, 4) float64
    area: np.ndarray      # (n,) float64
    score: np.ndarray     # (n,) float64; zeros for ground truth
    crowd: np.ndarray     # (n,) bool; False for detections

    def sorted(self):
        """By category, image and falling score; of equal ones in the order of before."""
        return self.select(np.lexsort((-self.score, self.image, self.category)))

    def select(self, rows):
        """Those of the given rows, (m,) int, in that order."""
        return Boxes(*(column[rows] for column in self))

    def runs(self):
        """{(category, image): slice of its rows}; the rows must be sorted."""
        pairs = np.stack([self.category, self.image], axis=1)
        edges = [0, *np.flatnonzero((pairs[1:] != pairs[:-1]).any(axis=1)) + 1, len(pairs)]
        return {tuple(pairs[start].tolist()): slice(start, end) for start, end in zip(edges, edges[1:]) if end > start}


def precision_and_recall(truth, found, categories, params):
    """COCOeval's evaluate() and accumulate().

    Args:
        truth, found: Boxes.
        categories: how many there are (K).
        params: pycocotools' Params; read are iouThrs (T), recThrs (R), areaRng (A) and maxDets (M, rising).

    Returns:
        precision (T, R, K, A, M) and recall (T, K, A, M), -1 where there is nothing to find.
    """
    truth, found = truth.sorted(), found.sorted()
    truth_runs, found_runs = truth.runs(), found.runs()
    rank = np.arange(len(found.image))
    for run in found_runs.values():
        rank[run] -= run.start
    ignored_truth = _outside(truth.area, params.areaRng) | truth.crowd
    matched = np.zeros((len(params.areaRng), len(params.iouThrs), len(rank)), bool)
    ignored = np.zeros_like(matched)
    for key in truth_runs.keys() & found_runs.keys():
        of_truth, of_found = truth_runs[key], found_runs[key]
        iou = mask.iou(found.xywh[of_found], truth.xywh[of_truth], truth.crowd[of_truth])
        _match(iou, ignored_truth[:, of_truth], truth.crowd[of_truth], params.iouThrs,
               matched[..., of_found], ignored[..., of_found])
    ignored |= ~matched & _outside(found.area, params.areaRng)[:, None]

    shape = (categories, len(params.areaRng), len(params.maxDets))
    precision = -np.ones((len(params.iouThrs), len(params.recThrs), *shape))
    recall = -np.ones((len(params.iouThrs), *shape))
    for k in range(categories):
        in_truth = slice(*np.searchsorted(truth.category, (k, k + 1)))
        wanted = np.count_nonzero(~ignored_truth[:, in_truth], axis=1)
        first, last = np.searchsorted(found.category, (k, k + 1))
        order = first + np.argsort(-found.score[first:last], kind="stable")
        for m, limit in enumerate(params.maxDets):
            best = order[rank[order] < limit]
            for a in np.flatnonzero(wanted):
                precision[:, :, k, a, m], recall[:, k, a, m] = _curve(
                    matched[a][:, best], ignored[a][:, best], wanted[a], params.recThrs)
    return precision, recall


def _outside(area, ranges):
    """(A, n) bool: which areas are not in which range."""
    low, high = np.asarray(ranges, np.float64).T[..., None]
    return (area < low) | (area > high)


def _match(iou, ignored_truth, crowd, thresholds, matched, ignored):
    """Match the detections of one image and class, best first, with its ground truth.

    Each takes the box of highest IoU, of equal ones the last, among those that no better detection has taken; a crowd may be
    taken again, and an ignored box (a crowd, or outside the area range) is taken only where there is no other.

    Args:
        iou: (D, G). ignored_truth: (A, G) bool. crowd: (G,) bool. thresholds: (T,).
        matched, ignored: (A, T, D) bool, all False; set where a detection takes a box, and where it takes an ignored one.
    """
    # From the back, as argmax gives the first of equal values.
    iou, ignored_truth, crowd = iou[:, ::-1], ignored_truth[:, None, ::-1], crowd[::-1]
    thresholds = thresholds[:, None]
    free = np.ones((*matched.shape[:2], len(crowd)), bool)
    for d in np.flatnonzero(iou.max(axis=1) >= thresholds.min()):
        able = free & (iou[d] >= thresholds)
        counted = able & ~ignored_truth
        able = np.where(counted.any(axis=2, keepdims=True), counted, able)
        a, t = np.nonzero(able.any(axis=2))
        taken = np.where(able, iou[d], -1.0).argmax(axis=2)[a, t]
        matched[a, t, d] = True
        ignored[a, t, d] = ignored_truth[a, 0, taken]
        free[a, t, taken] = crowd[taken]


def _curve(matched, ignored, wanted, recalls):
    """Precision (T, R) at the given recalls and the final recall (T,).

    matched, ignored: (T, n) bool, detections of one class by falling score; wanted: how many boxes there are to find.
    """
    precision = np.zeros((len(matched), len(recalls)))
    if not matched.shape[1]:
        return precision, 0.0
    hits = np.cumsum(matched & ~ignored, axis=1).astype(np.float64)
    misses = np.cumsum(~matched & ~ignored, axis=1)
    found = hits / wanted
    # Not lower than at any higher recall.
    envelope = np.maximum.accumulate((hits / (misses + hits + np.spacing(1)))[:, ::-1], axis=1)[:, ::-1]
    for t, row in enumerate(found):
        place = np.searchsorted(row, recalls, side="left")
        reached = place < len(row)
        precision[t, reached] = envelope[t, place[reached]]
    return precision, found[:, -1]
