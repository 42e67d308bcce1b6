"""src/train/step.py with a one-layer network whose gradient is known."""
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from src.run.distributed import SingleProcess
from src.train.all_reduce import AllReduce
from src.train.overflow import OverflowCheck
from src.train.statistics import moving_statistics
from src.train.step import GradientStep, build_optimizer, build_scaler, set_learning_rate

WEIGHT = np.float32([[0.5, -1.0, 2.0]])
BIAS = np.float32([0.25])
RATE = 0.1
CANVAS = (1, 1)
X = np.float32([[1, 2, 3], [-1, 0.5, 2]])
Y = np.float32([[3], [-2]])


class Forward(nn.Cell):
    """The mean squared error and, as a second number, its root; only the first is trained on."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Dense(3, 1, weight_init=Tensor(WEIGHT), bias_init=Tensor(BIAS))

    def construct(self, x, y):
        loss = ((self.layer(x) - y) ** 2).mean()
        return ops.stack((loss, ops.sqrt(loss)))


class NormalisedForward(nn.Cell):
    """Maps images (2, 3, 1, 2) and a factor to the mean of their BatchNorm times the factor."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def construct(self, x, factor):
        return ops.stack(((self.norm(x) * factor).mean(), factor))


def build(scaler="static", value=256.0, max_norm=False, accumulate_steps=1, device_target="CPU", group=None):
    forward = Forward()
    cfg = SimpleNamespace(type="momentum", weight_decay=0.0, momentum=0.9, nesterov=False, filter_bias_and_bn=True)
    optimizer = build_optimizer(cfg, forward.trainable_params())
    set_learning_rate(optimizer, RATE)
    scaler = build_scaler(SimpleNamespace(ms_loss_scaler=scaler, ms_loss_scaler_value=value, mix=True, mix_dtype="float16"))
    check = OverflowCheck(group or SingleProcess(), device_target)
    step = GradientStep({CANVAS: forward}, optimizer, scaler, max_norm, AllReduce(), check, accumulate_steps)
    return forward.layer, scaler, step


def loss_and_gradients(weight, bias, x=X, y=Y):
    error = x @ weight.T + bias - y
    return (error**2).mean(), 2 * error.T @ x / len(x), 2 * error.mean(0)


def run(step, x=X, y=Y):
    """Run a step whose rows are split into micro-batches of equal length."""
    parts = [(Tensor(part), Tensor(target)) for part, target in zip(*(np.split(rows, step.accumulate_steps) for rows in (x, y)))]
    losses, applied = step(CANVAS, parts)
    assert isinstance(applied, bool)
    return losses, applied


def assert_weights(layer, weight, bias):
    np.testing.assert_allclose(layer.weight.asnumpy(), weight, rtol=1e-5)
    np.testing.assert_allclose(layer.bias.asnumpy(), bias, rtol=1e-5)


@pytest.mark.usefixtures("graph_mode")
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


@pytest.mark.parametrize(("bad", "device_target"), [(np.inf, "CPU"), (np.nan, "CPU"), (1e30, "CPU"), (1e30, "Ascend")])
def test_an_overflow_skips_the_step_and_halves_a_dynamic_scale(bad, device_target):
    layer, scaler, step = build("dynamic", 1024.0, device_target=device_target)
    x = X.copy()
    x[0, 0] = bad
    for halved in (512, 256):
        _, applied = run(step, x)
        assert not applied
        np.testing.assert_array_equal(layer.weight.asnumpy(), WEIGHT)
        np.testing.assert_array_equal(layer.bias.asnumpy(), BIAS)
        assert scaler.scale_value.asnumpy() == halved
    # The next good step starts from the same weights without momentum.
    assert run(step)[1]
    _, by_weight, by_bias = loss_and_gradients(WEIGHT, BIAS)
    assert_weights(layer, WEIGHT - RATE * by_weight, BIAS - RATE * by_bias)


@pytest.mark.parametrize(("mix", "mix_dtype", "scale"), [(True, "float16", 512), (True, "bfloat16", 1), (False, "bfloat16", 512)])
@pytest.mark.parametrize("scaler", ["static", "dynamic"])
def test_bfloat16_has_no_loss_scale(scaler, mix, mix_dtype, scale):
    built = build_scaler(SimpleNamespace(ms_loss_scaler=scaler, ms_loss_scaler_value=512.0, mix=mix, mix_dtype=mix_dtype))
    built.adjust(Tensor(True))
    assert built.scale_value.asnumpy() == scale and hasattr(built, "counter") == (scaler == "dynamic" and scale > 1)


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


EIGHT = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
TARGETS = np.random.default_rng(1).normal(size=(8, 1)).astype(np.float32)


@pytest.mark.parametrize(("accumulate_steps", "max_norm", "mode"), [
    (1, False, ms.PYNATIVE_MODE), (1, 0.5, ms.GRAPH_MODE), (2, False, ms.GRAPH_MODE), (2, 0.5, ms.PYNATIVE_MODE),
    (4, False, ms.PYNATIVE_MODE), (4, 0.5, ms.PYNATIVE_MODE)])
def test_micro_batches_train_as_one_batch_of_all_their_rows(accumulate_steps, max_norm, mode):
    ms.set_context(mode=mode)
    layer, scaler, step = build(max_norm=max_norm, accumulate_steps=accumulate_steps)
    weight, bias, speed = WEIGHT.astype(np.float64), BIAS.astype(np.float64), [0, 0]
    for _ in range(5):
        losses, applied = run(step, EIGHT, TARGETS)
        loss, *gradients = loss_and_gradients(weight, bias, EIGHT, TARGETS)
        parts = [loss_and_gradients(weight, bias, *rows)[0] for rows in zip(*(np.split(rows, accumulate_steps)
                                                                             for rows in (EIGHT, TARGETS)))]
        np.testing.assert_allclose(losses, [loss, np.sqrt(parts).mean()], rtol=1e-5)
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
        factor = min(1, max_norm / norm) if max_norm else 1
        speed = [0.9 * v + factor * g for v, g in zip(speed, gradients)]
        weight, bias = weight - RATE * speed[0], bias - RATE * speed[1]
        assert applied
        assert_weights(layer, weight, bias)
    assert scaler.scale_value.asnumpy() == 256


@pytest.mark.parametrize("bad", [np.inf, np.nan, 1e30])
@pytest.mark.parametrize("place", [0, 3, 7])
def test_an_overflow_in_one_micro_batch_skips_the_step(place, bad):
    layer, scaler, step = build("dynamic", 1024.0, accumulate_steps=4)
    x = EIGHT.copy()
    x[place, 0] = bad
    for halved in (512, 256):
        assert not run(step, x, TARGETS)[1]
        assert scaler.scale_value.asnumpy() == halved
    np.testing.assert_array_equal(layer.weight.asnumpy(), WEIGHT)
    np.testing.assert_array_equal(layer.bias.asnumpy(), BIAS)
    # The next step starts from the same weights, without momentum and without earlier gradients.
    assert run(step, EIGHT, TARGETS)[1]
    _, by_weight, by_bias = loss_and_gradients(WEIGHT, BIAS, EIGHT, TARGETS)
    assert_weights(layer, WEIGHT - RATE * by_weight, BIAS - RATE * by_bias)


def test_a_step_counts_once_for_the_loss_scale_however_many_micro_batches_it_has():
    _, scaler, step = build("dynamic", 1024.0, accumulate_steps=4)
    scaler.counter.set_data(Tensor(1997, scaler.counter.dtype))
    scales = []
    for _ in range(3):
        run(step, EIGHT, TARGETS)
        scales.append(float(scaler.scale_value.asnumpy()))
    assert scales == [1024, 1024, 2048]


class OtherRank(SingleProcess):
    """Two processes, of which the second one has overflowed or not."""

    def __init__(self):
        self.overflowed = False

    def max(self, number):
        return max(number, int(self.overflowed))


@pytest.mark.parametrize(("device_target", "accumulate_steps"), [("CPU", 1), ("Ascend", 2)])
def test_an_overflow_on_another_process_skips_the_step(device_target, accumulate_steps):
    other = OtherRank()
    layer, scaler, step = build("dynamic", 1024.0, accumulate_steps=accumulate_steps, device_target=device_target, group=other)
    other.overflowed = True
    assert not run(step)[1]
    np.testing.assert_array_equal(layer.weight.asnumpy(), WEIGHT)
    assert scaler.scale_value.asnumpy() == 512
    other.overflowed = False
    assert run(step)[1] and not np.array_equal(layer.weight.asnumpy(), WEIGHT)
    assert scaler.scale_value.asnumpy() == 512


def test_the_flag_of_a_chip_counts_from_the_start_of_a_step_to_its_end(monkeypatch):
    """On Ascend 910A, amp.all_finite returns whether the chip's flag is clear, and clears it."""
    flag = []

    def read_and_clear(_):
        clear = not flag
        flag.clear()
        return Tensor(clear)

    monkeypatch.setattr("src.train.overflow.amp.all_finite", read_and_clear)
    _, _, step = build(device_target="Ascend", accumulate_steps=2)
    parts = [(Tensor(part), Tensor(target)) for part, target in zip(np.split(EIGHT, 2), np.split(TARGETS, 2))]

    def overflowing(number):
        for place, part in enumerate(parts):
            yield part
            if place == number:
                flag.append("set")

    flag.append("set by an evaluation")
    assert [step(CANVAS, micro_batches)[1] for micro_batches in (parts, overflowing(0), parts, overflowing(1), parts)] == [
        True, False, True, False, True]


def test_gradients_are_summed_on_the_cpu_alone():
    for device_target, sums in (("CPU", 1), ("Ascend", 0)):
        step = build(device_target=device_target)[2]
        assert [tensor.shape for tensor in step.means(CANVAS, [(Tensor(X), Tensor(Y))])] == [(2,), (1, 3), (1,), (2,)][:3 + sums]


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE])
def test_a_skipped_step_leaves_the_running_statistics(mode):
    """The second of two micro-batches overflows. A good step then updates the statistics twice, with momentum 0.1."""
    ms.set_context(mode=mode)
    forward = NormalisedForward()
    cfg = SimpleNamespace(type="momentum", weight_decay=0.0, momentum=0.9, nesterov=False, filter_bias_and_bn=True)
    optimizer = build_optimizer(cfg, forward.trainable_params())
    scaler = build_scaler(SimpleNamespace(ms_loss_scaler="static", ms_loss_scaler_value=256.0, mix=False))
    statistics = moving_statistics(forward)
    check = OverflowCheck(SingleProcess(), "CPU")
    step = GradientStep({CANVAS: forward}, optimizer, scaler, False, AllReduce(), check, 2, statistics)
    x = np.random.default_rng(0).normal(3, 2, (2, 3, 1, 2)).astype(np.float32)
    before = [parameter.asnumpy().copy() for parameter in forward.get_parameters()]
    for bad in (np.inf, np.nan):
        _, applied = step(CANVAS, [(Tensor(x), Tensor(np.float32(factor))) for factor in (1, bad)])
        assert not applied
        for parameter, value in zip(forward.get_parameters(), before):
            np.testing.assert_array_equal(parameter.asnumpy(), value)
    assert step(CANVAS, [(Tensor(x), Tensor(np.float32(1)))] * 2)[1]
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), ddof=1)
    np.testing.assert_allclose(statistics[0].asnumpy(), 0.19 * mean, rtol=1e-5)
    np.testing.assert_allclose(statistics[1].asnumpy(), 0.81 + 0.19 * variance, rtol=1e-5)


def test_the_statistics_that_training_moves():
    network = nn.SequentialCell(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.SyncBatchNorm(2),
                                nn.BatchNorm2d(2, use_batch_statistics=False))
    assert [parameter.name for parameter in moving_statistics(network)] == [
        f"{layer}.{name}" for layer in (0, 2) for name in ("moving_mean", "moving_variance")]
