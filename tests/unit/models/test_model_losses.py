"""src/models/losses.py compared with float64 formulas and analytic gradients."""
import mindspore as ms
import numpy as np
from mindspore import Tensor

from src.models.losses import binary_cross_entropy_sum, cross_entropy_sum, smooth_l1_sum


def gradient(loss, *arrays):
    """Return the gradient of `loss` by its first argument."""
    return ms.grad(loss)(*(Tensor(array) for array in arrays)).asnumpy()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    powers = np.exp(x - x.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_binary_cross_entropy(computed):
    rng = np.random.default_rng(0)
    logits, weight = rng.normal(0, 4, (3, 7)).astype(np.float32), rng.random((3, 7)).astype(np.float32)
    target = (rng.random((3, 7)) < 0.5).astype(np.float32)
    chance = sigmoid(logits.astype(np.float64))
    expected = -(weight * (target * np.log(chance) + (1 - target) * np.log(1 - chance))).sum()
    np.testing.assert_allclose(computed(binary_cross_entropy_sum, logits, target, weight), expected, rtol=1e-5)
    np.testing.assert_allclose(gradient(binary_cross_entropy_sum, logits, target, weight), weight * (chance - target),
                               rtol=1e-4, atol=1e-6)


def test_binary_cross_entropy_at_extreme_logits():
    logits, target = np.float32([[1e4, -1e4, 1e4, -1e4]]), np.float32([[1, 0, 0, 1]])
    weight = np.ones((1, 4), np.float32)
    loss = binary_cross_entropy_sum(Tensor(logits), Tensor(target), Tensor(weight))
    np.testing.assert_allclose(loss.asnumpy(), 2e4)
    np.testing.assert_allclose(gradient(binary_cross_entropy_sum, logits, target, weight), [[0, 0, 1, -1]], atol=1e-6)


def test_cross_entropy(computed):
    rng = np.random.default_rng(1)
    logits, weight = rng.normal(0, 3, (6, 4)).astype(np.float32), rng.random(6).astype(np.float32)
    label = np.int32([0, 3, 2, 1, 3, 0])
    chance = softmax(logits.astype(np.float64))
    expected = -(weight * np.log(chance[np.arange(6), label])).sum()
    np.testing.assert_allclose(computed(cross_entropy_sum, logits, label, weight), expected, rtol=1e-5)
    np.testing.assert_allclose(gradient(cross_entropy_sum, logits, label, weight),
                               weight[:, None] * (chance - np.eye(4)[label]), rtol=1e-4, atol=1e-6)


def test_cross_entropy_at_extreme_logits():
    logits, label, weight = np.float32([[1e4, -1e4, 0], [1e4, -1e4, 0]]), np.int32([0, 1]), np.ones(2, np.float32)
    loss = cross_entropy_sum(Tensor(logits), Tensor(label), Tensor(weight))
    np.testing.assert_allclose(loss.asnumpy(), 2e4)
    np.testing.assert_allclose(gradient(cross_entropy_sum, logits, label, weight), [[0, 0, 0], [1, -1, 0]], atol=1e-6)


def test_smooth_l1_worked_values():
    # At beta / 2, beta and 2 * beta: 0.5 d^2 / beta, then |d| - beta / 2.
    difference = Tensor(np.float32([[1, -2, 4, 0]]))
    assert smooth_l1_sum(difference, 2.0, Tensor(np.float32([1]))).asnumpy() == 0.25 + 1 + 3
    assert smooth_l1_sum(difference, 2.0, Tensor(np.float32([0]))).asnumpy() == 0


def test_smooth_l1_and_its_gradient(computed):
    rng = np.random.default_rng(2)
    beta = 1 / 9
    difference = (rng.normal(0, 0.2, (2, 5, 4))).astype(np.float32)
    difference[0, 0] = 1e4, -1e4, 0, 1e-8
    weight = (rng.random((2, 5)) < 0.7).astype(np.float32)

    def loss(difference, weight):
        return smooth_l1_sum(difference, 1 / 9, weight)

    exact = difference.astype(np.float64)
    expected = np.where(np.abs(exact) < beta, 0.5 * exact**2 / beta, np.abs(exact) - beta / 2)
    np.testing.assert_allclose(computed(loss, difference, weight), (expected.sum(-1) * weight).sum(), rtol=1e-5)
    slope = np.clip(exact / beta, -1, 1) * weight[..., None]
    np.testing.assert_allclose(gradient(loss, difference, weight), slope, rtol=1e-4, atol=1e-6)
