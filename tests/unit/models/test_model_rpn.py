"""src/models/rpn.py: anchors compared with worked values, the head at single anchors with the dense head, losses with loops."""
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from src.config.schema import AnchorGenerator
from src.models.boxes import gather_rows
from src.models.roi_align import extract_patches, neighbours_inside
from src.models.rpn import AnchorHead, AnchorSampler, DenseAnchorSampler, RPNHead, RPNLoss, canvas_anchors, cell_anchors

BETA = 1 / 9
CFG = SimpleNamespace(rnp_sample_batch=6, fg_fraction=0.5, negative_overlap=0.3, positive_overlap=0.7)

# IoU with 10 x 10 boxes at (0, 0) and (50, 0): 1, 0.8, 0.5 (ignored), 0.9, 0.25, and none.
ANCHORS = np.float32([
    [0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5], [0, 1, 10, 10], [6, 0, 16, 10], [200, 0, 210, 10], [50, 0, 60, 2],
    [50, 0, 54, 10], [300, 0, 310, 10], [0, 300, 10, 310], [400, 0, 410, 10]])
# The third box is padding, although it equals an anchor. The second image has no box. The only box of the third image has at
# most IoU 0.4 with an anchor, below the threshold 0.7.
BOXES = np.float32([[[0, 0, 10, 10], [50, 0, 60, 10], [200, 0, 210, 10]], [[0, 0, 10, 10]] * 3,
                    [[50, 0, 60, 10], [0, 0, 0, 0], [0, 0, 0, 0]]])
MASK = np.array([[True, True, False], [False, False, False], [True, False, False]])


@pytest.mark.parametrize(("sizes", "ratios", "rounded", "expected"), [
    ([32, 64], [1.0, 4.0], False, [[-16, -16, 16, 16], [-32, -32, 32, 32], [-8, -32, 8, 32], [-16, -64, 16, 64]]),
    # 32 * sqrt(1 / 2) / 2 = 11.31, 32 * sqrt(2) / 2 = 22.63; half of 5 is rounded to the even number 2.
    ([32, 5], [0.5, 1.0], True, [[-23, -11, 23, 11], [-4, -2, 4, 2], [-16, -16, 16, 16], [-2, -2, 2, 2]])])
def test_cell_anchors_worked_values(sizes, ratios, rounded, expected):
    np.testing.assert_allclose(cell_anchors(sizes, ratios, rounded), expected)


def test_strides_of_a_canvas_that_64_does_not_divide():
    """Width 416 has 7 cells on the last level: 64 pixels each, where the last is outside the border, or 416 // 7 = 59."""
    for from_canvas, stride in ((False, 64), (True, 59)):
        levels = canvas_anchors(AnchorGenerator(strides_from_canvas=from_canvas), (320, 416))
        assert [len(level) for level in levels] == [3 * 80 * 104, 3 * 40 * 52, 3 * 20 * 26, 3 * 10 * 13, 3 * 5 * 7]
        last = levels[-1].reshape(5, 7, 3, 4)
        centres = (last[..., :2] + last[..., 2:]) / 2
        np.testing.assert_allclose(centres[:, :, 1, 0], np.tile(np.arange(7) * stride, (5, 1)), atol=1e-4)
        np.testing.assert_allclose(centres[:, :, 1, 1], np.tile(np.arange(5)[:, None] * 64, (1, 7)), atol=1e-4)


class DenseLoss(nn.Cell):
    """Computes the losses from the outputs of all anchors: logits (B, N) and deltas (B, N, 4)."""

    def __init__(self, sampler):
        super().__init__()
        self.sampler, self.is_dense = sampler(CFG), sampler is DenseAnchorSampler
        self.loss = RPNLoss(BETA)

    def construct(self, anchors, logits, deltas, boxes, mask, priority):
        targets = self.sampler(anchors, boxes, mask, priority)
        if not self.is_dense:
            index, *targets = targets
            logits, deltas = ops.gather_elements(logits, 1, index), gather_rows(deltas, index)
        return self.loss(logits, deltas, *targets)


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0) * max(height, 0)
    return overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap)


def deltas_to(box, anchor):
    side, anchor_side = box[2:] - box[:2], anchor[2:] - anchor[:2]
    shift = (box[:2] + box[2:] - anchor[:2] - anchor[2:]) / 2 / anchor_side
    return np.concatenate((shift, np.log(side / anchor_side)))


def labels_of(boxes):
    """Return 1 for positive, 0 for negative, -1 for ignored anchors, and the box of each anchor."""
    if not len(boxes):
        return np.zeros(len(ANCHORS), int), None
    table = np.array([[iou(anchor, box) for box in boxes] for anchor in ANCHORS])
    labels = np.where(table.max(1) < 0.3, 0, -1)
    labels[table.max(1) >= 0.7] = 1
    labels[np.isclose(table, table.max(0)).any(1)] = 1
    return labels, table.argmax(1)


def expected_losses(logits, deltas, priority):
    objectness, box_loss, sampled_count, samples = 0.0, 0.0, 0, []
    for image in range(len(logits)):
        boxes = BOXES[image][MASK[image]].astype(np.float64)
        labels, box_index = labels_of(boxes)
        order = np.argsort(-priority[image])
        positives = [i for i in order if labels[i] == 1][:3]
        negatives = [i for i in order if labels[i] == 0][:6 - len(positives)]
        samples.append((positives, negatives))
        sampled_count += len(positives) + len(negatives)
        chance = 1 / (1 + np.exp(-logits[image].astype(np.float64)))
        objectness -= np.log(chance[positives]).sum() + np.log(1 - chance[negatives]).sum()
        for i in positives:
            distance = np.abs(deltas[image, i] - deltas_to(boxes[box_index[i]], ANCHORS[i].astype(np.float64)))
            box_loss += np.where(distance < BETA, 0.5 * distance**2 / BETA, distance - BETA / 2).sum()
    return objectness / sampled_count, box_loss / sampled_count, sampled_count, samples


def random_input(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (3, len(ANCHORS))).astype(np.float32)
    deltas = rng.normal(0, 0.3, (3, len(ANCHORS), 4)).astype(np.float32)
    priority = rng.permuted(np.tile(np.arange(len(ANCHORS)), (3, 1)), axis=1).astype(np.float32)
    # The anchor that is ignored in the first image would be sampled first.
    best = priority[0].argmax()
    priority[0, [2, best]] = priority[0, [best, 2]]
    return logits, deltas, priority


@pytest.mark.parametrize("sampler", [AnchorSampler, DenseAnchorSampler])
@pytest.mark.parametrize("seed", [0, 1])
def test_losses_equal_plain_loops_and_only_the_sample_has_a_gradient(seed, sampler):
    logits, deltas, priority = random_input(seed)
    loss = DenseLoss(sampler)

    def both(logits, deltas):
        losses = loss(Tensor(ANCHORS), logits, deltas, Tensor(BOXES), Tensor(MASK), Tensor(priority))
        return sum(losses), *losses

    (_, *found), gradients = ms.value_and_grad(both, (0, 1), has_aux=True)(Tensor(logits), Tensor(deltas))
    by_logits, by_deltas = (gradient.asnumpy() for gradient in gradients)
    *losses, count, samples = expected_losses(logits, deltas, priority)
    assert count == 18
    np.testing.assert_allclose([value.asnumpy() for value in found], losses, rtol=1e-5)
    chance = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = np.zeros_like(chance)
    for image, (positives, negatives) in enumerate(samples):
        expected[image, positives] = chance[image, positives] - 1
        expected[image, negatives] = chance[image, negatives]
        assert set(np.flatnonzero(np.abs(by_deltas[image]).sum(1))) == set(positives)
    np.testing.assert_allclose(by_logits, expected / count, rtol=1e-4, atol=1e-7)


class SingleAnchors(nn.Cell):
    """Computes a head's outputs at single anchors, from the patches around their cells."""

    def __init__(self, head):
        super().__init__()
        self.head = head
        self.single = AnchorHead(head)

    def construct(self, index, *levels):
        cells = self.head.locate_anchors(index, levels)
        return self.single(index, extract_patches(levels, *cells, self.head.num_convs), neighbours_inside(levels, *cells))


@pytest.mark.usefixtures("graph_mode")
@pytest.mark.parametrize("num_convs", [1, 2])
def test_single_anchors_have_the_outputs_and_gradients_of_the_dense_head(num_convs):
    rng = np.random.default_rng(5)
    head = RPNHead(4, 6, 3, num_convs)
    for parameter in head.get_parameters():
        parameter.set_data(Tensor(rng.normal(size=parameter.shape).astype(np.float32)))
    # Levels with odd sizes, with a single row and with a single cell.
    levels = [Tensor(rng.normal(size=(2, 4, *size)).astype(np.float32)) for size in ((5, 7), (3, 2), (1, 3), (1, 1))]
    num_anchors = 3 * (35 + 6 + 3 + 1)
    index = Tensor(np.stack([rng.permutation(num_anchors), rng.integers(0, num_anchors, num_anchors)]).astype(np.int32))
    weight = Tensor(rng.normal(size=(2, num_anchors)).astype(np.float32))
    at_single_anchors = SingleAnchors(head)

    def single(*levels):
        logits, deltas = at_single_anchors(index, *levels)
        return ((logits + deltas.sum(2)) * weight).sum(), logits, deltas

    def dense(*levels):
        logits, deltas = head(levels)
        logits, deltas = ops.gather_elements(logits, 1, index), gather_rows(deltas, index)
        return ((logits + deltas.sum(2)) * weight).sum(), logits, deltas

    weights = ms.ParameterTuple(head.trainable_params())
    assert len(weights) == 4 + 2 * num_convs
    (one, gradients), (other, expected) = (ms.value_and_grad(function, (0, 1, 2, 3), weights, has_aux=True)(*levels)
                                           for function in (single, dense))
    for found, wanted in zip([*one[1:], *gradients[0], *gradients[1]], [*other[1:], *expected[0], *expected[1]]):
        np.testing.assert_allclose(found.asnumpy(), wanted.asnumpy(), rtol=1e-4, atol=1e-4)
        assert np.abs(wanted.asnumpy()).max() > 0
