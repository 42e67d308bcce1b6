"""src/models/rpn.py: anchors compared with worked values, the head with NumPy, its outputs at single anchors, and the losses with
plain loops."""
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from src.config.schema import AnchorGenerator
from src.models.boxes import gather_rows
from src.models.roi_align import extract_patches
from src.models.rpn import AnchorHead, AnchorSampler, RPNHead, RPNLoss, canvas_anchors, cell_anchors

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


def test_rows_run_over_y_then_x_then_anchor():
    generator = AnchorGenerator(strides=[8], anchor_sizes=[[16]], aspect_ratios=[1.0, 4.0], rounded=False)
    (anchors,) = canvas_anchors(generator, (16, 24))
    assert anchors.dtype == np.float32
    square, tall = np.array([-8, -8, 8, 8]), np.array([-4, -16, 4, 16])
    expected = [anchor + np.array([x, y, x, y]) for y in (0, 8) for x in (0, 8, 16) for anchor in (square, tall)]
    np.testing.assert_allclose(anchors, expected)


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

    def __init__(self):
        super().__init__()
        self.sampler = AnchorSampler(CFG)
        self.loss = RPNLoss(BETA)

    def construct(self, anchors, logits, deltas, boxes, mask, priority):
        index, target, is_positive, is_sampled = self.sampler(anchors, boxes, mask, priority)
        return self.loss(ops.gather_elements(logits, 1, index), gather_rows(deltas, index), target, is_positive, is_sampled)


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
        samples.append((set(positives), set(negatives)))
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


@pytest.mark.parametrize("seed", [0, 1])
def test_losses_equal_plain_loops(computed, seed):
    logits, deltas, priority = random_input(seed)
    found = computed(DenseLoss(), ANCHORS, logits, deltas, BOXES, MASK, priority)
    expected = expected_losses(logits, deltas, priority)
    assert expected[2] == 18
    np.testing.assert_allclose(found, expected[:2], rtol=1e-5)


def test_only_the_sample_has_a_gradient():
    logits, deltas, priority = random_input(2)
    loss = DenseLoss()

    def both(logits, deltas):
        return sum(loss(Tensor(ANCHORS), logits, deltas, Tensor(BOXES), Tensor(MASK), Tensor(priority)))

    by_logits, by_deltas = (g.asnumpy() for g in ms.grad(both, (0, 1))(Tensor(logits), Tensor(deltas)))
    _, _, count, samples = expected_losses(logits, deltas, priority)
    chance = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = np.zeros_like(chance)
    for image, (positives, negatives) in enumerate(samples):
        positives, negatives = list(positives), list(negatives)
        expected[image, positives] = chance[image, positives] - 1
        expected[image, negatives] = chance[image, negatives]
        assert set(np.flatnonzero(np.abs(by_deltas[image]).sum(1))) == set(positives)
    np.testing.assert_allclose(by_logits, expected / count, rtol=1e-4, atol=1e-7)


def test_head_runs_over_levels_then_y_x_anchor():
    """The 3x3 convolution is the identity, so the outputs are the 1x1 convolutions of the features."""
    rng = np.random.default_rng(4)
    channels, num_anchors = 4, 3
    head = RPNHead(channels, channels, num_anchors)
    kernel = np.zeros((channels, channels, 3, 3), np.float32)
    kernel[np.arange(channels), np.arange(channels), 1, 1] = 1
    weights = {"objectness": rng.normal(size=(num_anchors, channels)), "deltas": rng.normal(size=(12, channels))}
    biases = {"objectness": rng.normal(size=num_anchors), "deltas": rng.normal(size=12)}
    head.conv.weight.set_data(Tensor(kernel))
    for name in weights:
        getattr(head, name).weight.set_data(Tensor(weights[name][:, :, None, None].astype(np.float32)))
        getattr(head, name).bias.set_data(Tensor(biases[name].astype(np.float32)))
    levels = [rng.random((2, channels, *size)).astype(np.float32) for size in ((4, 6), (2, 3))]

    logits, deltas = (o.asnumpy() for o in head(tuple(Tensor(level) for level in levels)))
    assert (logits.shape, deltas.shape) == ((2, 90), (2, 90, 4))
    cells = [(level, y, x) for level in levels for y in range(level.shape[2]) for x in range(level.shape[3])]
    for image in range(2):
        features = np.array([level[image, :, y, x] for level, y, x in cells])
        expected = features @ weights["objectness"].T + biases["objectness"]
        np.testing.assert_allclose(logits[image], expected.reshape(-1), rtol=1e-4, atol=1e-5)
        expected = features @ weights["deltas"].T + biases["deltas"]
        np.testing.assert_allclose(deltas[image], expected.reshape(-1, 4), rtol=1e-4, atol=1e-5)


class SingleAnchors(nn.Cell):
    """Computes a head's outputs at single anchors, from the patches around their cells."""

    def __init__(self, head):
        super().__init__()
        self.head = head
        self.single = AnchorHead(head)

    def construct(self, index, *levels):
        return self.single(index, extract_patches(levels, *self.head.locate_anchors(index, levels)))


def test_single_anchors_have_the_outputs_of_the_dense_head(computed):
    rng = np.random.default_rng(5)
    head = RPNHead(4, 6, 3)
    for parameter in head.get_parameters():
        parameter.set_data(Tensor(rng.normal(size=parameter.shape).astype(np.float32)))
    # Levels with odd sizes, with a single row and with a single cell.
    levels = [rng.normal(size=(2, 4, *size)).astype(np.float32) for size in ((5, 7), (3, 2), (1, 3), (1, 1))]
    num_anchors = 3 * (35 + 6 + 3 + 1)
    index = np.stack([rng.permutation(num_anchors), rng.integers(0, num_anchors, num_anchors)]).astype(np.int32)
    logits, deltas = (o.asnumpy() for o in head(tuple(Tensor(level) for level in levels)))
    single_logits, single_deltas = computed(SingleAnchors(head), index, *levels)
    np.testing.assert_allclose(single_logits, np.take_along_axis(logits, index, 1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(single_deltas, np.take_along_axis(deltas, index[..., None], 1), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("graph_mode")
def test_gradient_of_single_anchors_equals_the_dense_one():
    rng = np.random.default_rng(6)
    head = RPNHead(3, 5, 2)
    levels = tuple(Tensor(rng.normal(size=(2, 3, *size)).astype(np.float32)) for size in ((4, 5), (2, 3)))
    index = Tensor(np.int32([[0, 51, 39, 40, 17], [3, 3, 20, 45, 8]]))
    weight = Tensor(rng.normal(size=(2, 5)).astype(np.float32))

    at_single_anchors = SingleAnchors(head)

    def single(*levels):
        logits, deltas = at_single_anchors(index, *levels)
        return ((logits + deltas.sum(2)) * weight).sum()

    def dense(*levels):
        logits, deltas = head(levels)
        return ((ops.gather_elements(logits, 1, index) + gather_rows(deltas, index).sum(2)) * weight).sum()

    weights = ms.ParameterTuple(head.trainable_params())
    assert len(weights) == 6
    found, expected = (ms.grad(function, (0, 1), weights)(*levels) for function in (single, dense))
    for one, other in zip(found[0] + found[1], expected[0] + expected[1]):
        np.testing.assert_allclose(one.asnumpy(), other.asnumpy(), rtol=1e-4, atol=1e-6)
        assert np.abs(other.asnumpy()).max() > 0
