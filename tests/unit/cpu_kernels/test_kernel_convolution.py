"""KernelFunctionalConv2d against the definition in float64 and against the plain cell."""
import numpy as np
import pytest
from mindspore import nn

from src.cpu_kernels.operators import KernelFunctionalConv2d
from src.models.residual import FunctionalConv2d
from tests.helpers.kernel_calls import assert_close, with_gradients

TOLERANCE = 5e-6
OFFSETS = [(i, j) for i in range(3) for j in range(3)]


def convolve(x, weight):
    """The definition: x (B, C, H, W), weight (K, C, 3, 3) -> (B, K, H, W)."""
    height, width = x.shape[2:]
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sum(np.tensordot(weight[:, :, i, j], x[:, :, i:i + height, j:j + width], (1, 1)) for i, j in OFFSETS).swapaxes(0, 1)


def weight_gradient(x, dout):
    height, width = x.shape[2:]
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    parts = [np.tensordot(dout, x[:, :, i:i + height, j:j + width], ((0, 2, 3), (0, 2, 3))) for i, j in OFFSETS]
    return np.stack(parts, -1).reshape(dout.shape[1], x.shape[1], 3, 3)


def arguments(batch, channels, outputs, height, width):
    rng = np.random.default_rng(channels)
    shapes = (batch, channels, height, width), (outputs, channels, 3, 3), (outputs,), (batch, outputs, height, width)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


# The last ones: several segments of a row and several blocks, and weights that are handled in parts.
@pytest.mark.parametrize("shape", [
    (1, 1, 1, 29, 30), (2, 3, 17, 17, 23), (1, 17, 64, 25, 27), (3, 64, 70, 13, 15), (2, 70, 3, 18, 21), (1, 17, 3, 1, 157),
    (40, 3, 3, 1, 1), (1, 3, 17, 13, 401), (1, 390, 385, 25, 26), (1, 390, 385, 47, 50)])
def test_convolution_and_its_gradients(kernels, shape):
    *inputs, dout = arguments(*shape)
    check(kernels, nn.Conv2d(shape[1], shape[2], 3, pad_mode="same"), inputs, dout)


@pytest.mark.parametrize("shape", [(2, 3, 17, 17, 23), (1, 17, 64, 24, 28), (2, 5, 3, 1, 30), (1, 3, 4, 9, 1)])
def test_stride_2(kernels, shape):
    *inputs, dout = arguments(*shape)
    conv = nn.Conv2d(shape[1], shape[2], 3, stride=2, pad_mode="pad", padding=1)
    check(kernels, conv, inputs, dout[:, :, ::2, ::2].copy())


def check(kernels, conv, inputs, dout):
    """Compare the kernel and the plain cell with the definition."""
    plain, stride = FunctionalConv2d(conv), conv.stride[0]
    fast = KernelFunctionalConv2d(kernels, plain)
    fast.min_tiles = 0
    results = [with_gradients(cell, dout, *inputs, graph=cell is fast) for cell in (fast, plain)]
    x, weight, bias, dout = (array.astype(np.float64) for array in (*inputs, dout))
    short, dout = dout, np.zeros((*dout.shape[:2], *x.shape[2:]))
    dout[:, :, ::stride, ::stride] = short
    turned = weight[:, :, ::-1, ::-1].swapaxes(0, 1)
    expected = [convolve(dout, turned), weight_gradient(x, dout), dout.sum((0, 2, 3))]
    for output, gradients in results:
        assert_close(output, (convolve(x, weight) + bias[:, None, None])[:, :, ::stride, ::stride], TOLERANCE)
        for found, gradient in zip(gradients, expected):
            assert_close(found, gradient, TOLERANCE)
    assert not np.array_equal(results[0][0], results[1][0])


@pytest.mark.parametrize(("width", "same_bits"), [(156, True), (157, False)])
def test_few_tiles_are_left_to_the_plain_cell(kernels, width, same_bits):
    assert KernelFunctionalConv2d.MIN_TILES[1] == 40
    *inputs, dout = arguments(1, 17, 3, 4, width)
    plain = FunctionalConv2d(nn.Conv2d(17, 3, 3, pad_mode="same"))
    (one, gradients), (other, plain_gradients) = (with_gradients(cell, dout, *inputs)
                                                  for cell in (KernelFunctionalConv2d(kernels, plain), plain))
    for a, b in zip((one, *gradients[:2]), (other, *plain_gradients[:2])):
        assert np.array_equal(a, b) == same_bits
