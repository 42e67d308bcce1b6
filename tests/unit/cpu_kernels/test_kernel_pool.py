"""The RoIAlign kernels compared with the plain cells and with matrix products in float64."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.cpu_kernels.operators import KernelRoIAlign, KernelRoIAlignPair, KernelTrainingFeatures
from src.models.faster_rcnn import RoIAndAnchorFeatures
from src.models.roi_align import MultiScaleRoIAlign, RoIAlign
from tests.helpers.kernel_calls import assert_close, with_gradients

SIZES = ((13, 17), (7, 9), (1, 5), (6, 1), (1, 1))
# In cells: inside, fractional, whole, over each border, outside at each side and corner, without area, thin, inverted.
BOXES = np.float32([
    [1, 2, 6, 5], [0.3, 0.7, 4.9, 3.2], [0, 0, 17, 13], [-3, -2, 4, 5], [3, 4, 25, 20], [-9, -9, -5, -4], [30, 1, 40, 3],
    [2, 30, 5, 33], [50, 60, 70, 80], [2, 3, 2, 3], [0, 0, 0, 0], [3.3, 0.1, 3.4, 12], [5, 5, 2, 1], [-1, -1, 0, 0],
    [16, 12, 17, 13], [0.5, 0.5, 0.9, 0.9], [8.2, 1.5, 14.7, 9.1], [-0.9, 3, 1.1, 4]])


def channels_last(levels):
    """Return levels with the memory layout of the kernels."""
    return tuple(level.transpose(0, 2, 3, 1).reshape(level.shape) for level in levels)


def first_of_pair(kernels, plain):
    """Return the first pooling of a pair, with the arguments of RoIAlign."""
    pair = KernelRoIAlignPair(kernels, plain, RoIAlign(3, sampling_ratio=1, aligned=False))
    return lambda levels, boxes, level: pair(boxes, level, boxes, level, levels)[0]


def axis_weights(start, end, limit, resolution, samples, aligned):
    """Return the weights (resolution, limit) of the cells of one axis."""
    start = start - 0.5 * aligned
    length = end - 0.5 * aligned - start if aligned else max(end - start, 1.0)
    length = max(length, 0.0)
    weights = np.zeros((resolution, limit))
    for i in range(resolution * samples):
        position = start + length * (i + 0.5) / (resolution * samples)
        if -1 <= position <= limit:
            position = min(max(position, 0), limit - 1)
            low = int(position)
            weights[i // samples, low] += (low + 1 - position) / samples
            weights[i // samples, min(low + 1, limit - 1)] += (position - low) / samples
    return weights


def expected_pool(levels, boxes, level, resolution, samples, aligned, dout):
    """Return pooled features and the gradients of the levels, in float64."""
    number = boxes.shape[1]
    pooled, gradients = [], [np.zeros(feature.shape) for feature in levels]
    for i, (x1, y1, x2, y2) in enumerate(boxes.reshape(-1, 4).astype(np.float64)):
        feature = levels[level[i]][i // number].astype(np.float64)
        y = axis_weights(y1, y2, feature.shape[1], resolution, samples, aligned)
        x = axis_weights(x1, x2, feature.shape[2], resolution, samples, aligned)
        pooled.append(y @ feature @ x.T)
        gradients[level[i]][i // number] += y.T @ dout[i] @ x
    return np.array(pooled), gradients


# Sizes of the levels, channels, batch size, boxes per image, level of all boxes (None: any), resolution, samples, aligned.
CASES = {
    "usual": (SIZES, 17, 2, BOXES, None, 7, 2, True),
    "not aligned": (SIZES, 3, 2, BOXES, None, 7, 2, False),
    "one sample": (SIZES, 3, 1, BOXES, None, 3, 1, True),
    "three samples": (SIZES, 1, 2, BOXES, None, 2, 3, False),
    "resolution 2": (SIZES, 1, 1, BOXES, None, 2, 2, True),
    "one level used": (SIZES, 3, 2, BOXES, 1, 3, 3, True),
    "single row": (SIZES, 3, 1, BOXES, 2, 3, 2, True),
    "single column": (SIZES, 3, 1, BOXES, 3, 3, 2, False),
    "single cell": (SIZES, 3, 1, BOXES, 4, 3, 2, True),
    "one RoI": (SIZES, 17, 1, BOXES[1:2], 0, 7, 2, True),
    "one RoI outside": (SIZES, 1, 2, BOXES[5:6], 0, 7, 2, True),
    "no valid RoI": (SIZES, 3, 2, 0 * BOXES, 0, 7, 2, True),
    "wide level": (((5, 70), (3, 35)), 3, 1, BOXES * np.float32([5, 0.3, 4, 0.5]), None, 7, 2, True),
}


@pytest.mark.parametrize("case", CASES)
def test_pool_and_its_gradient(kernels, case):
    sizes, channels, batch, boxes, only, *geometry = CASES[case]
    resolution, number = geometry[0], len(boxes)
    rng = np.random.default_rng(0)
    levels = [rng.normal(size=(batch, channels, *size)).astype(np.float32) for size in sizes]
    # The second image has another order.
    boxes = np.stack([boxes, boxes[::-1]][:batch])
    level = np.int32(np.arange(batch * number) % len(sizes) if only is None else np.full(batch * number, only))
    dout = rng.normal(size=(batch * number, channels, resolution, resolution)).astype(np.float32)
    plain = RoIAlign(*geometry)
    pair, others = first_of_pair(kernels, plain), (Tensor(boxes), Tensor(level))
    results = [with_gradients(lambda *levels: plain(levels, *others), dout, *levels),
               with_gradients(lambda *levels: pair(channels_last(levels), *others), dout, *levels)]
    alone = KernelRoIAlign(kernels, plain)(channels_last(map(Tensor, levels)), *others)
    np.testing.assert_array_equal(alone.asnumpy(), results[1][0])
    expected, expected_gradients = expected_pool(levels, boxes, level, *geometry, dout)
    for pooled, gradients in results:
        assert_close(pooled, expected, 1e-5)
        for found, gradient in zip(gradients, expected_gradients):
            assert_close(found, gradient, 2e-5)
    assert case == "one RoI outside" or any(gradient.any() for gradient in expected_gradients)


@pytest.mark.parametrize(("channels", "batch"), [(3, 2), (17, 1)])
def test_patches_and_their_gradient(kernels, channels, batch):
    rng = np.random.default_rng(1)
    levels = [rng.normal(size=(batch, channels, *size)).astype(np.float32) for size in SIZES]
    # Every cell of every level, including corners and borders, and one cell twice.
    cells = np.int32([(i, y, x) for i, (h, w) in enumerate(SIZES) for y in range(h) for x in range(w)] + [(0, 0, 0)])
    cells = np.stack([cells, cells[::-1]][:batch])
    level, y, x = (np.ascontiguousarray(cells[..., i]) for i in range(3))
    dout = rng.normal(size=(batch, channels, 3, 3 * level.shape[1])).astype(np.float32)
    features = RoIAndAnchorFeatures(MultiScaleRoIAlign((4,), 1, 1, True))
    padded = [np.pad(feature, ((0, 0), (0, 0), (1, 1), (1, 1))) for feature in levels]
    expected = np.stack([np.concatenate([padded[i][b, :, j:j + 3, k:k + 3] for i, j, k in cells[b]], 2) for b in range(batch)])
    kernel = KernelTrainingFeatures(kernels, features)
    others = [Tensor(array) for array in (BOXES[None, :1].repeat(batch, 0), level, y, x)]
    found, gradients = with_gradients(lambda *levels: kernel(channels_last(levels), *others)[1], dout, *levels)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(features(tuple(map(Tensor, levels)), *others)[1].asnumpy(), expected)
    for one, feature in zip(gradients, padded):
        gradient = np.zeros(feature.shape)
        for b in range(batch):
            for s, (i, j, k) in enumerate(cells[b]):
                if padded[i] is feature:
                    gradient[b, :, j:j + 3, k:k + 3] += dout[b, :, :, 3 * s:3 * s + 3]
        assert_close(one, gradient[:, :, 1:-1, 1:-1], 1e-5)


def test_levels_of_bfloat16(kernels):
    """Levels are read in bfloat16, sums are in float32, and pooled features and gradients are rounded once."""
    rng = np.random.default_rng(3)
    levels = [Tensor(rng.normal(size=(2, 21, *size)).astype(np.float32)).astype(ms.bfloat16).astype(ms.float32).asnumpy()
              for size in ((13, 17), (7, 9))]
    boxes, level = np.stack([BOXES, BOXES[::-1]]), np.int32(np.arange(2 * len(BOXES)) % 2)
    dout = rng.integers(-8, 8, (len(level), 21, 7, 7)).astype(np.float32)  # exact in bfloat16
    pool = first_of_pair(kernels, RoIAlign(7, 2, True))

    def rounded(*levels):
        narrow = tuple(one.astype(ms.bfloat16) for one in channels_last(levels))
        return pool(narrow, Tensor(boxes), Tensor(level)).astype(ms.float32)

    pooled, gradients = with_gradients(rounded, dout, *levels)
    expected, expected_gradients = expected_pool(levels, boxes, level, 7, 2, True, dout)
    for found, gradient in zip((pooled, *gradients), (expected, *expected_gradients)):
        assert np.abs(found - gradient).max() > 1e-4
        np.testing.assert_allclose(found, gradient, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("dtype", [ms.float32, ms.bfloat16])
def test_boxes_and_cells_that_are_nan(kernels, dtype):
    """Their pooled features and gradients are NaN; the features of the remaining boxes do not change."""
    rng = np.random.default_rng(4)
    feature = rng.normal(size=(1, 9, 12, 5)).astype(np.float32)  # channels last
    boxes, level = np.float32([[1, 1, 4, 4]] * 6 + [[6, 5, 9, 8]]), np.int32([0, 0, 0, 0, 0, -2**31, 0])
    expected = None
    pool = KernelRoIAlign(kernels, RoIAlign(2, 2, True))
    for bad in (False, True):
        if bad:
            feature[0, 6, 7] = np.nan
            boxes[range(1, 5), range(4)] = np.nan
        levels = (Tensor(feature.reshape(1, 5, 9, 12)).astype(dtype),)
        found = pool(levels, Tensor(boxes[None]), Tensor(level)).astype(ms.float32).asnumpy()
        expected = found if expected is None else expected
    np.testing.assert_array_equal(found[0], expected[0])
    assert np.isnan(found[1:6]).all() and np.isnan(found[6]).any(axis=(1, 2)).all()
    pair, boxes, level = first_of_pair(kernels, RoIAlign(2, 2, True)), Tensor(boxes[None, :2]), Tensor(level[:2])
    gradient = ms.grad(lambda x: pair((x,), boxes, level).sum())
    assert np.isnan(gradient(Tensor(feature.reshape(1, 5, 9, 12))).asnumpy()).any()
