"""src/models/boxes.py compared with worked values and plain loops."""
import numpy as np
import pytest
from mindspore import Tensor

from src.models.boxes import clip, decode, encode, pairwise_iou


def iou_of_two(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def random_boxes(rng, *shape):
    start = rng.uniform(0, 50, (*shape, 2))
    return np.concatenate((start, start + rng.uniform(5, 60, (*shape, 2))), -1).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 2])
def test_iou_equals_plain_loops(computed, batch):
    rng = np.random.default_rng(0)
    boxes, others = random_boxes(rng, batch, 7), random_boxes(rng, 2, 5)
    expected = [[[iou_of_two(box, other) for other in others[b]] for box in boxes[b % batch]] for b in range(2)]
    np.testing.assert_allclose(computed(pairwise_iou, boxes, others), expected, rtol=1e-5, atol=1e-7)


def test_boxes_without_area_have_iou_zero_and_finite_deltas():
    boxes = np.float32([[[0, 0, 0, 0], [5, 5, 5, 9], [0, 0, 10, 10]]])
    others = np.float32([[[0, 0, 0, 0], [5, 5, 5, 9], [3, 3, 3, 3]]])
    np.testing.assert_array_equal(pairwise_iou(Tensor(boxes), Tensor(others)).asnumpy(), np.zeros((1, 3, 3)))
    assert np.isfinite(encode(Tensor(boxes), Tensor(others), (10.0, 10.0, 5.0, 5.0)).asnumpy()).all()


# Centres (5, 10) and (7, 24), sizes 10 x 20 and 10 x 40; centres (20, 40) and (22, 32), sizes 20 x 40 and 40 x 40.
@pytest.mark.parametrize(("reference", "box", "deltas"), [
    ([0, 0, 10, 20], [2, 4, 12, 44], [10 * 0.2, 20 * 0.7, 0, 3 * np.log(2)]),
    ([10, 20, 30, 60], [2, 12, 42, 52], [10 * 0.1, -20 * 0.2, 5 * np.log(2), 0])])
def test_worked_values(computed, reference, box, deltas):
    reference, box, deltas, weights = *map(np.float32, (reference, box, deltas)), (10.0, 20.0, 5.0, 3.0)
    np.testing.assert_allclose(computed(lambda *boxes: encode(*boxes, weights), box, reference), deltas, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(computed(lambda *columns: decode(*columns, weights), deltas, reference), box, rtol=1e-5)


def test_decode_clamps_size_deltas_only():
    deltas = np.float32([[0, 0, 100, 100], [0, 0, -100, 0], [30, 0, 0, 0]])
    reference = np.float32([[-8, -4, 8, 4]] * 3)
    boxes = decode(Tensor(deltas), Tensor(reference), (1.0, 1.0, 1.0, 1.0)).asnumpy()
    np.testing.assert_allclose(boxes[0], [-500, -250, 500, 250], rtol=1e-5)  # larger by the factor 1000 / 16
    np.testing.assert_allclose(boxes[1], [0, -4, 0, 4], atol=1e-6)
    np.testing.assert_allclose(boxes[2], [472, -4, 488, 4], rtol=1e-6)


def test_decode_is_exact_to_a_thousandth_of_a_pixel():
    """A box of 512 pixels scaled by exp(-4) to exp(4), compared with float64. MindSpore's exp is off by up to 0.1 pixels."""
    deltas = np.zeros((1000, 4), np.float32)
    deltas[:, 2] = deltas[:, 3] = np.linspace(-4, 4, 1000)
    boxes = decode(Tensor(deltas), Tensor(np.float32([-256, -256, 256, 256])), (1.0, 1.0, 1.0, 1.0)).asnumpy()
    half = 256 * np.exp(deltas[:, 2].astype(np.float64))
    np.testing.assert_allclose(boxes, np.stack((-half, -half, half, half), 1), rtol=2e-7, atol=1e-4)


def test_clip_cuts_each_image_at_its_own_border():
    boxes = np.float32([[[-5, -6, 300, 400], [10, 20, 30, 40]]] * 2)
    found = clip(Tensor(boxes), Tensor(np.float32([[100, 200], [35, 15]]))).asnumpy()
    np.testing.assert_array_equal(found, [[[0, 0, 200, 100], [10, 20, 30, 40]], [[0, 0, 15, 35], [10, 20, 15, 35]]])
