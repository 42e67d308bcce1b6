"""src/models/preprocess.py compared with the formula in NumPy, bit by bit."""
import itertools

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.models.preprocess import Preprocess

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


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
        normalize = {"is_scale": is_scale, "norm_type": norm_type, "mean": MEAN, "std": STD, "pad_first": pad_first}
        cell = Preprocess([{"NormalizeImage": normalize}, {"TransposeImage": {"bgr2rgb": bgr2rgb}}])
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
