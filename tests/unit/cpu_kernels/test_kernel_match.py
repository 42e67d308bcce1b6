"""KernelMatcher is bit-identical to the plain cell."""
import numpy as np
import pytest
from mindspore import Tensor

from src.cpu_kernels.operators import KernelMatcher
from src.models.matcher import Matcher


def random_boxes(rng, *shape, grid):
    """Return boxes (*shape, 4) within 40 pixels: on a grid (many ties, some without area) or anywhere."""
    corners = np.sort(7 * rng.integers(0, 7, (*shape, 2, 2)) if grid else rng.uniform(0, 40, (*shape, 2, 2)), axis=-2)
    return corners.reshape(*shape, 4).astype(np.float32)


def expected_match(candidates, boxes, mask):
    """Return the overlaps in float32, where every operation rounds, and the matches that result from them."""
    a, b = candidates[:, :, None], boxes[:, None]
    sides = [np.maximum(np.minimum(a[..., i + 2], b[..., i + 2]) - np.maximum(a[..., i], b[..., i]), 0) for i in (0, 1)]
    areas = [np.prod(np.maximum(box[..., 2:] - box[..., :2], 0), -1) for box in (a, b)]
    intersection = sides[0] * sides[1]
    iou = intersection / np.maximum(areas[0] + areas[1] - intersection, np.float32(1e-12)) * mask[:, None]
    is_best = (iou == iou.max(1, keepdims=True)) & (iou > 0) & mask[:, None]
    return iou.max(2), iou.argmax(2), is_best.any(2)


@pytest.mark.parametrize(("number", "boxes", "shared", "grid"), [
    (3000, 20, True, True), (3000, 20, False, True), (2500, 7, False, False), (1, 5, False, True), (1, 1, True, True),
    (1024, 3, True, True), (2049, 1, False, True), (70, 60, False, False)])
def test_equals_the_plain_cell_to_the_bit(kernels, number, boxes, shared, grid):
    rng = np.random.default_rng(number + boxes)
    candidates = random_boxes(rng, 1 if shared else 3, number, grid=grid)
    truth = random_boxes(rng, 3, boxes, grid=grid)
    truth[0, :] = truth[0, 0] if boxes == 7 else truth[0]  # identical boxes: the first one is matched
    mask = rng.random((3, boxes)) < 0.7
    mask[0, 0], mask[2] = True, False
    # Padding may equal a candidate.
    truth[:, -1] = candidates[:, number // 2]
    found, plain = ([o.asnumpy() for o in cell(Tensor(candidates), Tensor(truth), Tensor(mask))]
                    for cell in (KernelMatcher(kernels, Matcher()), Matcher()))
    for one, other, expected in zip(found, plain, expected_match(candidates, truth, mask)):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, expected)
    assert [output.dtype for output in found] == [np.float32, np.int32, bool]
    assert not found[0][2].any() and not found[2][2].any()
    if boxes == 20:
        assert found[2][:2].sum() > mask[:2].sum(), "there should be ties"


def test_boxes_that_are_nan_overlap_nothing(kernels):
    """Other boxes are matched as without NaN boxes. A NaN candidate becomes background, so that its pooled features are NaN."""
    rng = np.random.default_rng(0)
    candidates, truth, mask = random_boxes(rng, 1, 50, grid=True), random_boxes(rng, 1, 6, grid=True), np.ones((1, 6), bool)
    without = mask.copy()
    without[0, 2] = False
    rest = expected_match(candidates[:, 4:], truth, without)
    candidates[0, range(4), range(4)] = np.nan
    truth[0, 2, 1] = np.nan
    found = [output.asnumpy() for output in KernelMatcher(kernels, Matcher())(Tensor(candidates), Tensor(truth), Tensor(mask))]
    for one, other, nothing in zip(found, rest, (0, 0, False)):
        np.testing.assert_array_equal(one[:, 4:], other)
        assert (one[:, :4] == nothing).all()
