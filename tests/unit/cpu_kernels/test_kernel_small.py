"""The small kernels, preprocessing and non-maximum suppression, compared with the plain cells."""
import numpy as np
import pytest
from mindspore import Tensor

from src.config.load import MAX_NMS_BOXES
from src.cpu_kernels.operators import KernelNMS, KernelPreprocess
from src.models.preprocess import Preprocess
from src.models.rpn import BatchedNMS


@pytest.mark.parametrize("bgr2rgb", [True, False])
@pytest.mark.parametrize(("norm_type", "pad_first"), [("mean_std", False), ("none", False), ("mean_std", True)])
def test_preprocess_gives_the_same_bits(kernels, bgr2rgb, norm_type, pad_first):
    rng = np.random.default_rng(0)
    normalize = {"is_scale": True, "norm_type": norm_type, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
                 "pad_first": pad_first}
    plain = Preprocess([{"NormalizeImage": normalize}, {"TransposeImage": {"bgr2rgb": bgr2rgb}}])
    inputs = rng.integers(0, 256, (3, 7, 13, 3), dtype=np.uint8), np.float32([[7, 13], [1, 12], [6, 1]])
    expected, found = (cell(*map(Tensor, inputs)).asnumpy() for cell in (plain, KernelPreprocess(kernels, plain)))
    np.testing.assert_array_equal(found, expected)
    outside = np.concatenate((found[1, :, 1:].ravel(), found[2, :, :, 1:].ravel()))
    assert outside.all() if pad_first else not outside.any()
    assert found[0].any()


def survivors(boxes, ends, threshold):
    """Return the boxes kept by greedy NMS, by its definition in float32."""
    keep = np.ones(boxes.shape[:2], bool)
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    for image, own in enumerate(boxes):
        for start, end in zip((0, *ends), ends):
            for i in range(start, end):
                before = [j for j in range(start, i) if keep[image, j]]
                corner, other = np.maximum(own[before, :2], own[i, :2]), np.minimum(own[before, 2:], own[i, 2:])
                overlap = np.maximum(other - corner, 0).prod(1, dtype=np.float32)
                with np.errstate(invalid="ignore"):
                    iou = overlap / (area[image, before] + area[image, i] - overlap)
                keep[image, i] = not (iou > np.float32(threshold)).any()
    return keep


@pytest.mark.parametrize(("ends", "threshold"), [((1,), 0.7), ((200,), 0.5), ((90, 91, 150, 200), 0.7), ((64, 128, 200), 0.3)])
def test_nms_keeps_the_same_boxes(kernels, ends, threshold):
    rng = np.random.default_rng(1)
    # Whole numbers: many pairs have an overlap of exactly 0.5, some boxes are identical, and some have no area.
    corner = rng.integers(0, 12, (2, ends[-1], 2))
    boxes = np.concatenate([corner, corner + rng.integers(0, 9, (2, ends[-1], 2))], 2).astype(np.float32)
    plain = BatchedNMS(threshold)
    expected, found = (cell(Tensor(boxes), ends).asnumpy() for cell in (plain, KernelNMS(kernels, plain)))
    has_area = (boxes[..., 2:] > boxes[..., :2]).all(2)
    np.testing.assert_array_equal(found, survivors(boxes, ends, threshold))
    # The operator may drop boxes without area; their proposals are not valid.
    np.testing.assert_array_equal(found[has_area], expected[has_area])
    assert found.sum() < found.size or ends == (1,)


def test_nms_of_more_boxes_than_devices_take(kernels):
    """On the CPU, MindSpore's operator, which is used if there is no compiler, has no limit."""
    rng = np.random.default_rng(4)
    corner = rng.uniform(0, 400, (1, 3500, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 60, (1, 3500, 2))], 2).astype(np.float32)
    assert boxes.shape[1] > MAX_NMS_BOXES
    plain = BatchedNMS(0.5)
    expected, found = (cell(Tensor(boxes), (3500,)).asnumpy() for cell in (KernelNMS(kernels, plain), plain))
    np.testing.assert_array_equal(found, expected)
    assert 1000 < found.sum() < 3000


def test_nms_of_boxes_that_are_nan(kernels):
    """NaN boxes are kept, like by the operator, and suppress no other box."""
    plain = BatchedNMS(0.5)
    for column in range(4):
        boxes = np.float32([[[0, 0, 4, 4], [0, 0, 4, 5], [1, 1, 5, 5], [2, 2, 9, 9], [0, 0, 4, 5]]])
        boxes[0, 1, column] = np.nan
        for cell in (plain, KernelNMS(kernels, plain)):
            assert cell(Tensor(boxes), (5,)).asnumpy().tolist() == [[True, True, True, True, False]]
