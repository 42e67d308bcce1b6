"""src/models/anchors.py compared with worked values."""
import numpy as np

from src.config.schema import AnchorGenerator
from src.models.anchors import canvas_anchors, cell_anchors


def test_cell_anchors_keep_area_and_have_the_ratio():
    anchors = cell_anchors([32], [0.5, 1.0, 2.0], False)
    width, height = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    np.testing.assert_allclose(width * height, 32 * 32, rtol=1e-6)
    np.testing.assert_allclose(height / width, [0.5, 1, 2], rtol=1e-6)
    np.testing.assert_allclose(anchors[:, :2], -anchors[:, 2:], rtol=1e-6)


def test_cell_anchors_worked_values():
    np.testing.assert_allclose(cell_anchors([32, 64], [1.0, 4.0], False),
                               [[-16, -16, 16, 16], [-32, -32, 32, 32], [-8, -32, 8, 32], [-16, -64, 16, 64]])


def test_rows_run_over_y_then_x_then_anchor():
    generator = AnchorGenerator(strides=[8], anchor_sizes=[[16]], aspect_ratios=[1.0, 4.0], rounded=False)
    (anchors,) = canvas_anchors(generator, (16, 24))
    assert anchors.dtype == np.float32
    square, tall = np.array([-8, -8, 8, 8]), np.array([-4, -16, 4, 16])
    expected = [anchor + np.array([x, y, x, y]) for y in (0, 8) for x in (0, 8, 16) for anchor in (square, tall)]
    np.testing.assert_allclose(anchors, expected)


def test_levels_have_their_own_strides_and_sizes():
    strides = [4, 8, 16, 32, 64]
    generator = AnchorGenerator(strides=strides, anchor_sizes=[[32], [64], [128], [256], [512]], aspect_ratios=[0.5, 1.0, 2.0],
                                rounded=False, strides_from_canvas=False)
    levels = canvas_anchors(generator, (320, 416))
    assert [len(level) for level in levels] == [3 * 80 * 104, 3 * 40 * 52, 3 * 20 * 26, 3 * 10 * 13, 3 * 5 * 7]
    for level, stride, size in zip(levels, strides, (32, 64, 128, 256, 512)):
        centres = (level[:, :2] + level[:, 2:]) / 2
        np.testing.assert_allclose(centres[3] - centres[0], [stride, 0], atol=1e-4)
        np.testing.assert_allclose(np.prod(level[:, 2:] - level[:, :2], axis=1), size**2, rtol=1e-4)


def test_rounded_anchors_have_whole_corners():
    # 32 * sqrt(1 / 2) / 2 = 11.31, 32 * sqrt(2) / 2 = 22.63; half of 5 is rounded to the even number 2.
    np.testing.assert_array_equal(cell_anchors([32, 5], [0.5, 1.0], True),
                                  [[-23, -11, 23, 11], [-4, -2, 4, 2], [-16, -16, 16, 16], [-2, -2, 2, 2]])


def test_strides_of_a_canvas_that_64_does_not_divide():
    """Width 416 has 7 cells on the last level: 64 pixels each, where the last is outside the border, or 416 // 7 = 59."""
    for from_canvas, stride in ((False, 64), (True, 59)):
        last = canvas_anchors(AnchorGenerator(strides_from_canvas=from_canvas), (320, 416))[-1].reshape(5, 7, 3, 4)
        centres = (last[..., :2] + last[..., 2:]) / 2
        np.testing.assert_allclose(centres[:, :, 1, 0], np.tile(np.arange(7) * stride, (5, 1)), atol=1e-4)
        np.testing.assert_allclose(centres[:, :, 1, 1], np.tile(np.arange(5)[:, None] * 64, (1, 7)), atol=1e-4)
