"""src/models/anchors.py against worked values."""
import numpy as np

from src.models.anchors import cell_anchors, pyramid_anchors


def test_cell_anchors_keep_area_and_have_the_ratio():
    anchors = cell_anchors([32], [0.5, 1.0, 2.0])
    width, height = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    np.testing.assert_allclose(width * height, 32 * 32, rtol=1e-6)
    np.testing.assert_allclose(height / width, [0.5, 1, 2], rtol=1e-6)
    np.testing.assert_allclose(anchors[:, :2], -anchors[:, 2:], rtol=1e-6)


def test_cell_anchors_worked_values():
    np.testing.assert_allclose(cell_anchors([32, 64], [1.0, 4.0]),
                               [[-16, -16, 16, 16], [-32, -32, 32, 32], [-8, -32, 8, 32], [-16, -64, 16, 64]])


def test_rows_run_over_y_then_x_then_anchor():
    (anchors,) = pyramid_anchors([(2, 3)], [8], [[16]], [1.0, 4.0])
    assert anchors.dtype == np.float32
    square, tall = np.array([-8, -8, 8, 8]), np.array([-4, -16, 4, 16])
    expected = [anchor + np.array([x, y, x, y]) for y in (0, 8) for x in (0, 8, 16) for anchor in (square, tall)]
    np.testing.assert_allclose(anchors, expected)


def test_levels_have_their_own_strides_and_sizes():
    strides = [4, 8, 16, 32, 64]
    feature_sizes = [(-(-320 // stride), -(-416 // stride)) for stride in strides]
    levels = pyramid_anchors(feature_sizes, strides, [[32], [64], [128], [256], [512]], [0.5, 1.0, 2.0])
    assert [len(level) for level in levels] == [3 * 80 * 104, 3 * 40 * 52, 3 * 20 * 26, 3 * 10 * 13, 3 * 5 * 7]
    for level, stride, size in zip(levels, strides, (32, 64, 128, 256, 512)):
        centres = (level[:, :2] + level[:, 2:]) / 2
        np.testing.assert_allclose(centres[3] - centres[0], [stride, 0], atol=1e-4)
        np.testing.assert_allclose(np.prod(level[:, 2:] - level[:, :2], axis=1), size**2, rtol=1e-4)
