"""src/models/fpn.py compared with convolutions and upsampling in NumPy."""
import numpy as np
import pytest
from mindspore import Tensor

from src.models.fpn import FPN

CHANNELS, OUT = (2, 3, 4), 3
SIZES = ((8, 12), (4, 6), (2, 3))


def convolve(x, weight, bias):
    """Convolve x (B, C, H, W) with weight (O, C, k, k), zero-padded so that the size stays the same."""
    kernel = weight.shape[2]
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2))
    return bias[:, None, None] + sum(
        np.einsum("oc,bchw->bohw", weight[:, :, i, j], padded[:, :, i:i + height, j:j + width])
        for i in range(kernel) for j in range(kernel))


def double_nearest(x):
    return x.repeat(2, axis=2).repeat(2, axis=3)


def double_bilinear(x):
    """Upsample by 2 with half-pixel centres: a new row is 3/4 of the nearer old row and 1/4 of the farther one."""
    for axis in (2, 3):
        last = x.shape[axis] - 1
        before = np.take(x, np.maximum(np.arange(last + 1) - 1, 0), axis)
        after = np.take(x, np.minimum(np.arange(last + 1) + 1, last), axis)
        pairs = np.stack((0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after), axis + 1)
        x = pairs.reshape(*x.shape[:axis], 2 * (last + 1), *x.shape[axis + 1:])
    return x


@pytest.mark.parametrize(("mode", "double", "num_outs"), [("nearest", double_nearest, 3), ("bilinear", double_bilinear, 5)])
def test_top_down_path_equals_numpy(mode, double, num_outs):
    rng = np.random.default_rng(0)
    fpn = FPN(CHANNELS, OUT, num_outs, mode)
    for parameter in fpn.get_parameters():
        parameter.set_data(Tensor(rng.normal(size=parameter.shape).astype(np.float32)))
    features = [rng.normal(size=(2, c, *size)).astype(np.float32) for c, size in zip(CHANNELS, SIZES)]

    def apply(layer, x):
        return convolve(x, layer.weight.asnumpy(), layer.bias.asnumpy())

    merged = [apply(layer, feature) for layer, feature in zip(fpn.lateral, features)]
    merged[1] = merged[1] + double(merged[2])
    merged[0] = merged[0] + double(merged[1])
    expected = [apply(layer, x) for layer, x in zip(fpn.output, merged)]
    # After the last level: every second pixel of the previous level.
    expected += [expected[2][:, :, ::2, ::2], expected[2][:, :, ::2, ::2][:, :, ::2, ::2]]
    levels = fpn(tuple(Tensor(feature) for feature in features))
    assert [level.shape[2:] for level in levels] == [*SIZES, (1, 2), (1, 1)][:num_outs]
    for level, wanted in zip(levels, expected):
        np.testing.assert_allclose(level.asnumpy(), wanted, rtol=1e-3, atol=1e-3)
