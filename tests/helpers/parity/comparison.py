"""Measure how well two lists of boxes agree."""
import numpy as np


def relative_error(found, expected):
    """Return the largest difference, relative to the largest expected magnitude."""
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def iou(boxes, others):
    """Return the intersection over union (n, m) of xyxy boxes (n, 4) and (m, 4) in float64; NaN if both areas are 0."""
    boxes, others = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    inner = np.prod(np.maximum(sides, 0), -1)
    union = np.prod(boxes[..., 2:] - boxes[..., :2], -1) + np.prod(others[..., 2:] - others[..., :2], -1) - inner
    return np.divide(inner, union, out=np.full_like(inner, np.nan), where=union > 0)


def twins(boxes, expected):
    """Return, for each expected box, the index of the equal box (IoU > 0.999), or -1."""
    overlap = iou(expected, boxes)
    best = overlap.argmax(1)
    return np.where(overlap[np.arange(len(best)), best] > 0.999, best, -1)


def share_of_equal_detections(found, expected, **tolerances):
    """Return the share of expected detections with an equal one, see `has_equal_detection`."""
    return has_equal_detection(found, expected, **tolerances).mean()


def has_equal_detection(found, expected, overlap=0.999, pixels=0.01, score=1e-4):
    """Return whether each expected detection has an equal one: same class, score within `score`, and IoU above `overlap` or all
    edges within `pixels`. A box cut off at the border may be 0.05 pixels wide, and rounding alone then costs 0.01 of its IoU.

    Args:
        found, expected: (boxes (n, 4), scores (n,), classes (n,)) each.
    """
    same = iou(expected[0], found[0]) > overlap
    same |= np.abs(expected[0][:, None] - found[0][None]).max(-1) < pixels
    same &= np.abs(expected[1][:, None] - found[1][None]) < score
    same &= expected[2][:, None] == found[2][None]
    return same.any(1)
