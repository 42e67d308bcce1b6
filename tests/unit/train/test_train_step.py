"""src/train/step.py with a network of one layer, whose gradient is known."""
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from src.train.all_reduce import AllReduce
from src.train.step import GradientStep, build_optimizer, build_scaler, set_learning_rate

WEIGHT = np.float32([[0.5, -1.0, 2.0]])
BIAS = np.float32([0.25])
RATE = 0.1
CANVAS = (1, 1)
X = np.float32([[1, 2, 3], [-1, 0.5, 2]])
Y = np.float32([[3], [-2]])


class Forward(nn.Cell):
    """The squared error and, as a second figure, its root; only the first is trained on."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Dense(3, 1, weight_init=Tensor(WEIGHT), bias_init=Tensor(BIAS))

    def construct(self, x, y):
        loss = ((self.layer(x) - y) ** 2).sum()
        return ops.stack((loss, ops.sqrt(loss)))


def build(scaler="static", value=256.0, max_norm=False):
    forward = Forward()
    cfg = SimpleNamespace(type="momentum", weight_decay=0.0, momentum=0.9, nesterov=False, filter_bias_and_bn=True)
    optimizer = build_optimizer(cfg, forward.trainable_params())
    set_learning_rate(optimizer, RATE)
    scaler = build_scaler(SimpleNamespace(ms_loss_scaler=scaler, ms_loss_scaler_value=value))
    return forward.layer, scaler, GradientStep({CANVAS: forward}, optimizer, scaler, max_norm, AllReduce())


def loss_and_gradients(weight, bias):
    error = X @ weight.T + bias - Y
    return (error**2).sum(), 2 * error.T @ X, 2 * error.sum(0)


def run(step, x=X):
    losses, applied = step(CANVAS, Tensor(x), Tensor(Y))
    assert isinstance(applied, bool)
    return losses, applied


def assert_weights(layer, weight, bias):
    np.testing.assert_allclose(layer.weight.asnumpy(), weight, rtol=1e-5)
    np.testing.assert_allclose(layer.bias.asnumpy(), bias, rtol=1e-5)


@pytest.mark.parametrize(("scaler", "value"), [("static", 256.0), ("dynamic", 1024.0), ("none", 256.0)])
def test_two_steps_equal_numpy(scaler, value):
    layer, scaler_object, step = build(scaler, value)
    assert scaler_object.scale_value.asnumpy() == (1 if scaler == "none" else value)
    weight, bias, speed = WEIGHT.astype(np.float64), BIAS.astype(np.float64), [0, 0]
    for _ in range(2):
        losses, applied = run(step)
        assert applied
        loss, *gradients = loss_and_gradients(weight, bias)
        np.testing.assert_allclose(losses, [loss, np.sqrt(loss)], rtol=1e-5)
        speed = [0.9 * v + g for v, g in zip(speed, gradients)]
        weight, bias = weight - RATE * speed[0], bias - RATE * speed[1]
        assert_weights(layer, weight, bias)
    assert scaler_object.scale_value.asnumpy() == (1 if scaler == "none" else value)


@pytest.mark.parametrize("bad", [np.inf, np.nan, 1e30])
def test_an_overflow_skips_the_step_and_halves_a_dynamic_scale(bad):
    layer, scaler, step = build("dynamic", 1024.0)
    x = X.copy()
    x[0, 0] = bad
    for halved in (512, 256):
        _, applied = run(step, x)
        assert not applied
        np.testing.assert_array_equal(layer.weight.asnumpy(), WEIGHT)
        np.testing.assert_array_equal(layer.bias.asnumpy(), BIAS)
        assert scaler.scale_value.asnumpy() == halved
    # The next good step starts from the same weights and no momentum.
    assert run(step)[1]
    _, by_weight, by_bias = loss_and_gradients(WEIGHT, BIAS)
    assert_weights(layer, WEIGHT - RATE * by_weight, BIAS - RATE * by_bias)


def test_an_overflow_leaves_a_static_scale():
    layer, scaler, step = build("static", 256.0)
    assert not run(step, X * np.float32(np.inf))[1]
    assert scaler.scale_value.asnumpy() == 256
    np.testing.assert_array_equal(layer.weight.asnumpy(), WEIGHT)


def test_a_dynamic_scale_doubles_after_2000_good_steps():
    _, scaler, step = build("dynamic", 1024.0)
    scaler.counter.set_data(Tensor(1998, scaler.counter.dtype))
    scales = []
    for _ in range(3):
        run(step)
        scales.append(float(scaler.scale_value.asnumpy()))
    assert scales == [1024, 2048, 2048]


@pytest.mark.parametrize("share", [0.25, 4.0])
def test_gradients_are_clipped_by_their_global_norm(share):
    _, by_weight, by_bias = loss_and_gradients(WEIGHT.astype(np.float64), BIAS.astype(np.float64))
    norm = np.sqrt((by_weight**2).sum() + (by_bias**2).sum())
    layer, _, step = build(max_norm=float(share * norm))
    run(step)
    factor = min(share, 1)
    assert_weights(layer, WEIGHT - RATE * factor * by_weight, BIAS - RATE * factor * by_bias)
