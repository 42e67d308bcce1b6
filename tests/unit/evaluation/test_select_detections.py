"""Selection and NMS compared with a brute-force implementation, and the conversion to original pixels."""
import numpy as np
import pytest

from src.config.schema import Infer
from src.evaluation.detections import detections_of_image, select_detections

SCORES = np.float32([[0.75], [0.5]])


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def brute_force(boxes, scores, conf_threshold, nms_threshold, max_box_num):
    """Return [(proposal, class)] by decreasing score, by the definition, one candidate at a time."""
    candidates = [(-float(scores[r, k]), r, k) for r in range(scores.shape[0]) for k in range(scores.shape[1])
                  if scores[r, k] > conf_threshold
                  and boxes[r, k, 2] - boxes[r, k, 0] >= 0.01 and boxes[r, k, 3] - boxes[r, k, 1] >= 0.01]
    kept = []
    for _, r, k in sorted(candidates):
        box = boxes[r, k].astype(np.float64)
        if all(k != other or iou(box, boxes[q, other].astype(np.float64)) <= nms_threshold for q, other in kept):
            kept.append((r, k))
    return kept[:max_box_num]


def assert_same(boxes, scores, *settings):
    expected = brute_force(boxes, scores, *settings)
    found_boxes, found_scores, labels = select_detections(boxes, scores, *settings)
    assert labels.tolist() == [k for _, k in expected]
    np.testing.assert_array_equal(found_boxes, np.array([boxes[r, k] for r, k in expected]).reshape(-1, 4))
    np.testing.assert_array_equal(found_scores, np.array([scores[r, k] for r, k in expected]))
    assert found_boxes.dtype == np.float32 and found_scores.dtype == np.float32
    return expected


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("settings", [(0.05, 0.5, 100), (0.3, 0.3, 20), (0.0, 0.7, None), (0.5, 0.0, 7)])
def test_random_boxes(seed, settings):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (40, 4, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, 60, (40, 4, 2))], axis=2).astype(np.float32)
    scores = (rng.random((40, 4)) * (rng.random((40, 4)) < 0.7)).astype(np.float32)
    assert assert_same(boxes, scores, *settings)


@pytest.mark.parametrize("seed", range(8))
def test_ties_and_touching_boxes_on_a_grid(seed):
    """Few different corners and scores: there are many equal boxes, touching boxes, IoUs of exactly 0.5 and equal scores."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 4, (60, 3, 2))
    boxes = np.concatenate([corner, corner + rng.integers(0, 3, (60, 3, 2))], axis=2).astype(np.float32)
    scores = rng.choice(np.array([0, 0.25, 0.5, 0.75], np.float32), (60, 3))
    assert assert_same(boxes, scores, 0.25, 0.5, 100)


@pytest.mark.parametrize("shape", [(0, 3), (5, 3)])
def test_no_candidate(shape):
    boxes, scores, labels = select_detections(np.zeros((*shape, 4), np.float32), np.zeros(shape, np.float32),
                                              0.05, 0.5, 100)
    assert boxes.shape == (0, 4) and scores.shape == (0,) and labels.shape == (0,)


def test_boxes_without_area_and_nan_neither_appear_nor_suppress():
    boxes = np.array([[5, 5, 5, 40], [5, 5, 40, 5.005], [40, 40, 5, 5], [np.nan, 5, 40, 40], [5, 5, 40, 40]],
                     np.float32)
    scores = np.array([[0.9], [0.8], [0.7], [0.6], [0.5]], np.float32)
    found, _, _ = select_detections(boxes[:, None], scores, 0.05, 0.5, 100)
    np.testing.assert_array_equal(found, boxes[4:])
    scores[4] = np.nan
    assert len(select_detections(boxes[:, None], scores, 0.05, 0.5, 100)[0]) == 0


def test_boxes_are_scaled_to_the_original_image_and_clipped_to_it():
    original = np.array([[0, 0, 500, 375], [10.5, 20.25, 100, 300]], np.float32)
    scale = np.array([2.048, 2.56], np.float32)
    found = detections_of_image((original * scale[[1, 0, 1, 0]])[:, None], SCORES, Infer(), scale, np.array([375, 500], np.int32))
    np.testing.assert_allclose(found[0], original, rtol=1e-6)
    boxes = np.array([[[-4, -2, 1300, 90]], [[20, 10, 40, 30]]], np.float32)
    found, scores, labels = detections_of_image(boxes, SCORES, Infer(), [0.5, 2.0], [100, 600])
    np.testing.assert_array_equal(found, np.array([[0, 0, 600, 100], [10, 20, 20, 60]], np.float32))
    assert found.dtype == np.float32 and scores.tolist() == [0.75, 0.5] and labels.tolist() == [0, 0]
    assert detections_of_image(boxes, 0 * SCORES, Infer(), [1, 1], [5, 5])[0].shape == (0, 4)
