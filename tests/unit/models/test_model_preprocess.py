"""src/models/preprocess.py compared with the formula in NumPy."""
import itertools

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.models.preprocess import Preprocess

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
IMAGE = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
SIZES = np.float32([[6, 8], [4, 5]])


def run(computed, is_scale=True, norm_type="mean_std", mean=MEAN, std=STD, bgr2rgb=True, pad_first=False, image=IMAGE):
    normalize = {"is_scale": is_scale, "norm_type": norm_type, "mean": mean, "std": std, "pad_first": pad_first}
    return computed(Preprocess(normalize, {"hwc2chw": True, "bgr2rgb": bgr2rgb}), image, SIZES)


def outside_is_zero(images):
    """Set the second image to 0 outside its valid area, and put channels first."""
    images = images.copy()
    images[1, 4:] = 0
    images[1, :, 5:] = 0
    return images.transpose(0, 3, 1, 2)


def test_mean_and_std_of_scaled_pixels(computed):
    found = run(computed)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, outside_is_zero((IMAGE / 255 - MEAN) / STD), atol=1e-5)


def test_mean_and_std_belong_to_the_channels_as_the_network_sees_them(computed):
    found = run(computed, bgr2rgb=False)
    np.testing.assert_allclose(found, outside_is_zero((IMAGE[..., ::-1] / 255 - MEAN) / STD), atol=1e-5)


def test_padding_first_normalises_black(computed):
    padded = outside_is_zero(IMAGE)
    found = run(computed, pad_first=True, bgr2rgb=False, image=np.ascontiguousarray(padded.transpose(0, 2, 3, 1)))
    expected = (padded[:, ::-1] / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found[1, :, 5, 7], [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-5)


def test_unscaled_pixels(computed):
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    found = run(computed, is_scale=False, mean=mean, std=std)
    np.testing.assert_allclose(found, outside_is_zero((IMAGE - np.array(mean)) / std), atol=1e-5)


def test_no_mean_and_std(computed):
    np.testing.assert_allclose(run(computed, norm_type="none"), outside_is_zero(IMAGE / 255), rtol=1e-6)
    np.testing.assert_array_equal(run(computed, norm_type="none", is_scale=False), outside_is_zero(IMAGE))


# Each of the 256 values, next to and below other values, in a full image and in one with black padding.
EVERY_VALUE = np.stack([np.arange(256 * 3).reshape(16, 16, 3) // 3, np.arange(256 * 3).reshape(16, 16, 3) * 7]).astype(np.uint8)
EVERY_SIZE = np.float32([[16, 16], [9, 11]])
EVERY_VALUE[1, 9:] = EVERY_VALUE[1, :, 11:] = 0


@pytest.mark.parametrize(("is_scale", "norm_type", "pad_first", "mode"), [
    *itertools.product((True, False), ("mean_std", "none"), (True, False), [ms.PYNATIVE_MODE]),
    (True, "mean_std", True, ms.GRAPH_MODE), (True, "mean_std", False, ms.GRAPH_MODE)])
def test_bits_of_every_value(is_scale, norm_type, pad_first, mode):
    """Bit-identical to the formula in NumPy's float32. No compiler may fuse its steps."""
    ms.set_context(mode=mode)
    for bgr2rgb in (True, False):
        cell = Preprocess({"is_scale": is_scale, "norm_type": norm_type, "mean": MEAN, "std": STD, "pad_first": pad_first},
                          {"bgr2rgb": bgr2rgb})
        expected = EVERY_VALUE[..., :: 1 if bgr2rgb else -1].astype(np.float32)
        if is_scale:
            expected = expected / np.float32(255)
        if norm_type == "mean_std":
            expected = (expected - np.float32(MEAN)) / np.float32(STD)
        assert all(len(np.unique(expected[0, ..., i])) == 256 for i in range(3))
        if not pad_first:
            expected = expected * ((np.arange(16)[:, None] < EVERY_SIZE[:, 0, None, None])
                                   & (np.arange(16) < EVERY_SIZE[:, 1, None, None])).astype(np.float32)[..., None]
        found = cell(Tensor(EVERY_VALUE), Tensor(EVERY_SIZE)).asnumpy()
        np.testing.assert_array_equal(found.view(np.uint32), expected.transpose(0, 3, 1, 2).view(np.uint32))
