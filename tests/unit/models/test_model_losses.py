"""Losses and their gradients compared with float64 formulas, also for extreme inputs."""
import mindspore as ms
import numpy as np
from mindspore import Tensor

from src.models.boxes import smooth_l1_sum
from src.models.roi_head import cross_entropy_sum
from src.models.rpn import binary_cross_entropy_sum

EXTREMES = np.float32([1e4, -1e4, 0.01, 1e-8])


def check(loss, arrays, expected, expected_gradient):
    """Compare the sum of a loss and its gradient by the first argument."""
    tensors = [Tensor(array) for array in arrays]
    np.testing.assert_allclose(loss(*tensors).asnumpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(ms.grad(loss)(*tensors).asnumpy(), expected_gradient, rtol=1e-4, atol=1e-6)


def test_binary_cross_entropy():
    rng = np.random.default_rng(0)
    logits, weight = rng.normal(0, 4, (3, 8)).astype(np.float32), rng.random((3, 8)).astype(np.float32)
    target = (rng.random((3, 8)) < 0.5).astype(np.float32)
    logits[0], target[0] = np.tile(EXTREMES, 2), [0] * 4 + [1] * 4
    exact = logits.astype(np.float64)
    expected = weight * (target * np.logaddexp(0, -exact) + (1 - target) * np.logaddexp(0, exact))
    chance = np.exp(-np.logaddexp(0, -exact))
    check(binary_cross_entropy_sum, (logits, target, weight), expected.sum(), weight * (chance - target))


def test_cross_entropy():
    rng = np.random.default_rng(1)
    logits, weight = rng.normal(0, 3, (6, 4)).astype(np.float32), rng.random(6).astype(np.float32)
    label = np.int32([0, 3, 2, 1, 3, 0])
    logits[:3] = EXTREMES
    logarithms = logits - np.logaddexp.reduce(logits.astype(np.float64), axis=1, keepdims=True)
    expected = -(weight * logarithms[np.arange(6), label]).sum()
    check(cross_entropy_sum, (logits, label, weight), expected, weight[:, None] * (np.exp(logarithms) - np.eye(4)[label]))


def test_smooth_l1():
    rng = np.random.default_rng(2)
    beta = 1 / 9
    difference, weight = rng.normal(0, 0.2, (2, 5, 4)).astype(np.float32), (rng.random((2, 5)) < 0.7).astype(np.float32)
    difference[0, 0], weight[0, 0] = EXTREMES, 1
    exact = difference.astype(np.float64)
    expected = np.where(np.abs(exact) < beta, 0.5 * exact**2 / beta, np.abs(exact) - beta / 2)
    check(lambda difference, weight: smooth_l1_sum(difference, 1 / 9, weight), (difference, weight),
          (expected.sum(-1) * weight).sum(), np.clip(exact / beta, -1, 1) * weight[..., None])
