"""src/models/roi_head.py: sampling, losses and predictions compared with worked values and plain loops."""
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Tensor

from src.models.roi_head import RoILoss, RoIPredictor, RoISampler

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
NUM_CLASSES = 3

BOXES = np.float32([[[0, 0, 10, 10], [50, 0, 60, 10]], [[0, 0, 10, 10], [0, 0, 0, 0]]])
LABELS = np.int32([[2, 0], [1, 0]])
MASK = np.array([[True, True], [False, False]])
# IoU with the first image's boxes: 0.9, 0.6, 0.45, 0.2, 0, 0.8; the last RoI is not valid, although it equals a box.
PROPOSALS = np.float32([[[0, 0, 10, 9], [50, 0, 56, 10], [50, 0, 60, 4.5], [0, 0, 2, 10], [80, 80, 90, 90],
                         [0, 2, 10, 10], [0, 0, 10, 10]]] * 2)
VALID = np.array([[True] * 6 + [False]] * 2)


def settings(**changed):
    defaults = {"rois_per_batch": 8, "fg_fraction": 0.5, "fg_thresh": 0.5, "bg_thresh": 0.4}
    return SimpleNamespace(**{**defaults, **changed})


def rows_of(outputs, image):
    """Return {roi: (label, target box)} of the sampled rows of an image."""
    rois, targets, label, sampled = (o.asnumpy()[image] for o in outputs)
    return {tuple(rois[i]): (label[i], tuple(targets[i])) for i in np.flatnonzero(sampled)}


def test_sampler_labels_and_targets():
    priority = np.tile(np.arange(7, dtype=np.float32), (2, 1))
    sampler = RoISampler(settings(), False, NUM_CLASSES)
    outputs = sampler(*map(Tensor, (PROPOSALS, VALID, BOXES, LABELS, MASK, priority)))
    assert [o.shape for o in outputs] == [(2, 7, 4), (2, 7, 4), (2, 7), (2, 7)]
    first, second = rows_of(outputs, 0), rows_of(outputs, 1)
    background = NUM_CLASSES
    positives = {roi: row for roi, row in first.items() if row[0] != background}
    assert positives == {(0, 0, 10, 9): (2, (0, 0, 10, 10)), (50, 0, 56, 10): (0, (50, 0, 60, 10)),
                         (0, 2, 10, 10): (2, (0, 0, 10, 10))}
    # IoU 0.45 is between the thresholds, so the RoI is neither positive nor negative.
    assert set(first) - set(positives) == {(0, 0, 2, 10), (80, 80, 90, 90)}
    # Without boxes, all valid RoIs are background.
    assert {row[0] for row in second.values()} == {background}
    assert set(second) == {tuple(box) for box in PROPOSALS[1][:6]}


def test_sampler_adds_the_boxes(computed):
    priority = np.tile(np.arange(9, dtype=np.float32), (2, 1))
    sampler = RoISampler(settings(rois_per_batch=4, fg_fraction=0.5), True, NUM_CLASSES)
    rois, targets, label, sampled = computed(sampler, PROPOSALS, VALID, BOXES, LABELS, MASK, priority)
    # The added boxes come last and therefore have the highest priority; padded boxes are never sampled.
    np.testing.assert_array_equal(rois[0, :2], BOXES[0, ::-1])
    np.testing.assert_array_equal(targets[0, :2], BOXES[0, ::-1])
    np.testing.assert_array_equal(label[0], [0, 2, NUM_CLASSES, NUM_CLASSES])
    np.testing.assert_array_equal(rois[0, 2:], [[80, 80, 90, 90], [0, 0, 2, 10]])
    np.testing.assert_array_equal(rois[1], PROPOSALS[1][[5, 4, 3, 2]])
    np.testing.assert_array_equal(label[1], [NUM_CLASSES] * 4)
    assert sampled.all()


def test_unused_slots_repeat_the_sampled_rois(computed):
    """The first image has three positives and two negatives for eight slots, the second image has no valid RoI."""
    proposals = np.concatenate((PROPOSALS, PROPOSALS[:, :1]), 1)
    valid = np.array([[True] * 6 + [False] * 2, [False] * 8])
    priority = np.tile(np.arange(8, dtype=np.float32), (2, 1))
    rois, targets, label, sampled = computed(RoISampler(settings(), False, NUM_CLASSES), proposals, valid, BOXES, LABELS, MASK,
                                             priority)
    np.testing.assert_array_equal(rois[0], proposals[0][[5, 1, 0, 4, 3, 5, 1, 0]])
    np.testing.assert_array_equal(rois[1], proposals[1][[0] * 8])
    np.testing.assert_array_equal(sampled, [[True] * 5 + [False] * 3, [False] * 8])
    assert (label[~sampled] == NUM_CLASSES).all()
    np.testing.assert_array_equal(targets[0, 5:], targets[0, :3])


def deltas_to(box, roi):
    box, roi = box.astype(np.float64), roi.astype(np.float64)
    side, roi_side = box[2:] - box[:2], roi[2:] - roi[:2]
    shift = (box[:2] + box[2:] - roi[:2] - roi[2:]) / 2 / roi_side
    return np.concatenate((shift, np.log(side / roi_side))) * WEIGHTS


@pytest.mark.parametrize("beta", [1.0, 0.25])
def test_losses_equal_plain_loops(computed, beta):
    rng = np.random.default_rng(0)
    number = 5
    start = rng.uniform(0, 40, (2, 2, number, 2))
    rois, targets = np.concatenate((start, start + rng.uniform(5, 40, start.shape)), -1).astype(np.float32)
    label = np.int32([[0, 2, 3, 3, 1], [3, 3, 3, 1, 3]])
    # In the second image, the fourth slot is unused, whatever its content, and so is the last slot, which has no area.
    sampled = np.array([[True] * 5, [True, True, True, False, False]])
    rois[1, 4] = targets[1, 4] = 0
    logits = rng.normal(0, 2, (2 * number, NUM_CLASSES + 1)).astype(np.float32)
    deltas = rng.normal(0, 2, (2 * number, NUM_CLASSES, 4)).astype(np.float32)

    classification = box_loss = 0.0
    for row in range(2 * number):
        image, slot = divmod(row, number)
        if not sampled[image, slot]:
            continue
        scores = logits[row].astype(np.float64)
        own = label[image, slot]
        classification += np.log(np.exp(scores).sum()) - scores[own]
        if own < NUM_CLASSES:
            distance = np.abs(deltas[row, own] - deltas_to(targets[image, slot], rois[image, slot]))
            box_loss += np.where(distance < beta, 0.5 * distance**2 / beta, distance - beta / 2).sum()
    found = computed(RoILoss(NUM_CLASSES, WEIGHTS, beta), logits, deltas, rois, targets, label, sampled)
    np.testing.assert_allclose(found, (classification / 8, box_loss / 8), rtol=1e-5)


def test_losses_of_an_empty_sample_are_zero():
    zeros = Tensor(np.zeros((1, 2, 4), np.float32))
    losses = RoILoss(NUM_CLASSES, WEIGHTS, 1.0)(
        Tensor(np.ones((2, 4), np.float32)), Tensor(np.ones((2, 3, 4), np.float32)), zeros, zeros,
        Tensor(np.int32([[3, 3]])), Tensor(np.array([[False, False]])))
    assert [loss.asnumpy() for loss in losses] == [0, 0]


def test_predictor(computed):
    proposals = np.float32([[[10, 20, 30, 60], [0, 0, 0, 0]], [[10, 20, 30, 60], [40, 40, 60, 60]]])
    valid = np.array([[True, False], [True, True]])
    sizes = np.float32([[55, 40], [200, 300]])
    logits = np.log(np.float32([[1, 2, 5], [1, 1, 1], [3, 6, 1], [2, 2, 6]]))
    deltas = np.zeros((4, 2, 4), np.float32)
    deltas[:, 1] = 10 * 0.1, -10 * 0.25, 5 * np.log(2), 0  # 2x as wide, 2 right and 10 up from a height of 40
    boxes, scores = computed(RoIPredictor(WEIGHTS), logits, deltas, proposals, valid, sizes)
    np.testing.assert_allclose(scores, [[[1 / 8, 2 / 8], [0, 0]], [[0.3, 0.6], [0.2, 0.2]]], rtol=1e-5)
    # Without clipping, the first box is (2, 10, 42, 50) for the second class.
    np.testing.assert_allclose(boxes[0, 0], [[10, 20, 30, 55], [2, 10, 40, 50]], rtol=1e-5)
    np.testing.assert_allclose(boxes[1], [[[10, 20, 30, 60], [2, 10, 42, 50]], [[40, 40, 60, 60], [32, 35, 72, 55]]],
                               rtol=1e-5)
    boxes, unclipped_scores = computed(RoIPredictor(WEIGHTS, clipped=False), logits, deltas, proposals, valid, sizes)
    np.testing.assert_allclose(boxes[0, 0], [[10, 20, 30, 60], [2, 10, 42, 50]], rtol=1e-5)
    np.testing.assert_array_equal(unclipped_scores, scores)
