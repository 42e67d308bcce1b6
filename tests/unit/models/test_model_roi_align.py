"""src/models/roi_align.py compared with RoIAlign (arXiv:1703.06870) written as plain loops."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.models.roi_align import MultiScaleRoIAlign
from tests.helpers.kernel_calls import with_gradients

CANVAS = (256, 320)
STRIDES = (4, 8, 16)
# First image: one RoI of every level (areas around 224^2 belong to stride 16), at the borders, outside (which no clipped RoI is),
# thin, and without area. Second image: different RoIs.
ROIS = np.float32([
    [[30, 40, 75.5, 90.25], [20, 10, 240, 236], [2, 1, 317, 255], [0, 0, 15, 20], [300, 230, 320, 256],
     [-30, -25, 40, 45], [290, 200, 360, 290], [100, 5, 101, 200], [50, 60, 50, 60], [0, 0, 0, 0]],
    [[0, 0, 320, 256], [111, 33, 150, 99], [60, 10, 280, 250], [319, 255, 320, 256], [320, 256, 320, 256],
     [7.5, 8.25, 9, 10], [0, 100, 320, 130], [5, 5, 118, 116], [5, 5, 116, 118], [1, 2, 300, 250]]])


def level_of(roi):
    """Return the index into STRIDES: level 4, stride 16, for an area of 224^2; one level up or down per factor of 4."""
    size = np.sqrt((roi[2] - roi[0]) * (roi[3] - roi[1]))
    return int(np.clip(np.floor(4 + np.log2(max(size, 1e-9) / 224) + 1e-6), 2, 4)) - 2


def bilinear(feature, y, x):
    """Return feature (C, H, W) at (y, x): zero more than one cell outside, otherwise clamped to the border."""
    height, width = feature.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(len(feature))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    return ((1 - dy) * ((1 - dx) * feature[:, top, left] + dx * feature[:, top, right])
            + dy * ((1 - dx) * feature[:, bottom, left] + dx * feature[:, bottom, right]))


def align(feature, roi, stride, resolution, samples, aligned):
    """Pool one RoI from feature (C, H, W): (C, resolution, resolution)."""
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = roi.astype(np.float64) / stride - shift
    height, width = y2 - y1, x2 - x1
    if not aligned:
        height, width = max(height, 1.0), max(width, 1.0)
    bin_height, bin_width = height / resolution, width / resolution
    pooled = np.zeros((len(feature), resolution, resolution))
    for row in range(resolution):
        for column in range(resolution):
            for i in range(samples):
                for j in range(samples):
                    y = y1 + (row + (i + 0.5) / samples) * bin_height
                    x = x1 + (column + (j + 0.5) / samples) * bin_width
                    pooled[:, row, column] += bilinear(feature, y, x) / samples**2
    return pooled


def pyramid(rng, batch, channels):
    return [rng.normal(size=(batch, channels, CANVAS[0] // s, CANVAS[1] // s)).astype(np.float32) for s in STRIDES]


def pool(cell, levels, rois):
    return cell(tuple(Tensor(level) for level in levels), Tensor(rois)).asnumpy()


@pytest.mark.parametrize(("mode", "aligned", "resolution", "samples"), [
    (ms.GRAPH_MODE, True, 7, 2), (ms.PYNATIVE_MODE, False, 3, 1)])
@pytest.mark.parametrize("operator", ["gather", "roi_align"])
def test_equals_plain_loops(mode, aligned, resolution, samples, operator):
    ms.set_context(mode=mode)
    levels = pyramid(np.random.default_rng(0), 2, 3)
    cell = MultiScaleRoIAlign(STRIDES, resolution, samples, aligned, operator)
    # On the CPU, MindSpore's operator does not compute an RoI of zeros in the first image.
    rois = ROIS if aligned or operator == "gather" else ROIS[:, :-1]
    found = pool(cell, levels, rois)
    expected = [align(levels[level_of(roi)][image], roi, STRIDES[level_of(roi)], resolution, samples, aligned)
                for image in range(2) for roi in rois[image]]
    assert {level_of(roi) for roi in rois.reshape(-1, 4)} == {0, 1, 2}
    np.testing.assert_allclose(found, expected, atol=2e-4)
    np.testing.assert_array_equal(pool(cell, levels, rois), found)


def test_levels_by_size():
    cell = MultiScaleRoIAlign((4, 8, 16, 32), 7, 2, True)
    sides = [0, 1, 111.9, 112.1, 223.9, 224, 224.1, 447.9, 448.1, 2000]
    rois = np.float32([[[10, 20, 10 + side, 20 + side] for side in sides]])
    np.testing.assert_array_equal(cell.locate(Tensor(rois))[1].asnumpy(), [0, 0, 0, 1, 1, 2, 2, 2, 3, 3])
    oblong = Tensor(np.float32([[[0, 0, 448, 112], [0, 0, 100, 501], [0, 0, 100, 503]]]))
    np.testing.assert_array_equal(cell.locate(oblong)[1].asnumpy(), [2, 1, 2])


@pytest.mark.usefixtures("graph_mode")
@pytest.mark.parametrize("operator", ["gather", "roi_align"])
def test_gradient_of_the_features(operator):
    """Pooling is linear: the gradient of a weighted sum, times a direction, is the weighted sum of the pooled direction."""
    rng = np.random.default_rng(1)
    cell = MultiScaleRoIAlign(STRIDES, 2, 2, True, operator)
    levels = tuple(Tensor(level) for level in pyramid(rng, 1, 1))
    weight = rng.normal(size=(10, 1, 2, 2)).astype(np.float32)

    def weighted(*levels):
        return (cell(levels, Tensor(ROIS[:1])) * Tensor(weight)).sum()

    gradient = ms.grad(weighted, (0, 1, 2))
    found, again = gradient(*levels), gradient(*levels)
    for level in range(3):
        if operator == "gather":
            np.testing.assert_array_equal(again[level].asnumpy(), found[level].asnumpy())
        # Channels are used as directions, so that many directions are tested at once.
        directions = rng.normal(size=(50, *levels[level].shape[2:]))
        expected = sum((align(directions, roi, STRIDES[level], 2, 2, True) * roi_weight).sum((1, 2))
                       for roi, roi_weight in zip(ROIS[0], weight) if level_of(roi) == level)
        np.testing.assert_allclose((found[level].asnumpy()[0] * directions).sum((1, 2)), expected, atol=1e-4)


def test_operator_takes_nothing_from_other_levels():
    """Levels that are not finite affect only RoIs that are pooled from them, and no gradients of other levels."""
    levels = pyramid(np.random.default_rng(6), 2, 3)
    cell = MultiScaleRoIAlign(STRIDES, 3, 2, True, "roi_align")
    level_of_rois = np.array([level_of(roi) for roi in ROIS.reshape(-1, 4)])

    def pooled_and_gradients(levels):
        return with_gradients(lambda *levels: cell(levels, Tensor(ROIS)), np.ones((20, 3, 3, 3), np.float32), *levels)

    expected, expected_gradients = pooled_and_gradients(levels)
    for broken in range(3):
        found, gradients = pooled_and_gradients([np.full_like(level, np.nan) if i == broken else level
                                                 for i, level in enumerate(levels)])
        np.testing.assert_array_equal(found[level_of_rois != broken], expected[level_of_rois != broken])
        assert np.isnan(found[level_of_rois == broken]).any()
        for gradient, other in zip(gradients, expected_gradients):
            np.testing.assert_allclose(gradient, other, atol=1e-4)
