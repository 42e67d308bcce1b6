"""src/train/step.py and parallel.py with small networks whose gradients are known, compared with NumPy."""
from itertools import groupby
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from src.errors import UserError
from src.run.distributed import SingleProcess
from src.train.parallel import AllReduce, moving_statistics
from src.train.step import Graph, Momentum, StepResult, TrainStep, build_scaler
from tests.helpers.runs import settings

WEIGHT, BIAS = np.float32([[0.5, -1.0, 2.0]]), np.float32([0.25])
RATE, CANVAS = 0.1, (1, 1)
X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(8, 1)).astype(np.float32)


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


def build(forward=None, group=None, **changes):
    forward = forward or Forward()
    return TrainStep(forward, settings(**{"mix": True, **changes}), 0, group or SingleProcess(), {CANVAS: forward})


def loss_and_gradients(weight, bias, x=X, y=Y):
    error = x @ weight.T + bias - y
    return (error**2).mean(), 2 * error.T @ x / len(x), 2 * error.mean(0)


def parts(step, x=X, y=Y):
    """Return the rows as micro-batches of equal length."""
    count = step.accumulate_steps
    return [(Tensor(rows), Tensor(targets)) for rows, targets in zip(np.split(x, count), np.split(y, count))]


def result_of(step, inputs):
    return StepResult.read(step.run(CANVAS, inputs, RATE))


def run(step, x=X):
    result = result_of(step, parts(step, x))
    return result.losses, result.applied


def assert_weights(step, weight, bias):
    np.testing.assert_allclose(step.network.layer.weight.asnumpy(), weight, rtol=1e-5)
    np.testing.assert_allclose(step.network.layer.bias.asnumpy(), bias, rtol=1e-5)


def assert_unchanged(step):
    np.testing.assert_array_equal(step.network.layer.weight.asnumpy(), WEIGHT)
    np.testing.assert_array_equal(step.network.layer.bias.asnumpy(), BIAS)


@pytest.mark.parametrize(("scaler", "accumulate_steps", "max_norm", "mode"), [
    ("static", 1, False, ms.GRAPH_MODE), ("dynamic", 1, 0.5, ms.GRAPH_MODE), ("none", 1, 100.0, ms.PYNATIVE_MODE),
    ("static", 2, False, ms.GRAPH_MODE), ("dynamic", 4, 0.5, ms.PYNATIVE_MODE)])
def test_steps_equal_numpy_on_one_batch_of_all_rows(scaler, accumulate_steps, max_norm, mode):
    """The gradients' norm is between 0.5 and 100 in the first step, and gradients are clipped to max_norm."""
    ms.set_context(mode=mode)
    step = build(ms_loss_scaler=scaler, accumulate_steps=accumulate_steps, clip_grads=max_norm)
    weight, bias, speed = WEIGHT.astype(np.float64), BIAS.astype(np.float64), [0, 0]
    for _ in range(3):
        losses, applied = run(step)
        assert applied
        loss, *gradients = loss_and_gradients(weight, bias)
        roots = [np.sqrt(loss_and_gradients(weight, bias, x.asnumpy(), y.asnumpy())[0]) for x, y in parts(step)]
        np.testing.assert_allclose(losses, [loss, np.mean(roots)], rtol=1e-5)
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
        factor = min(1, max_norm / norm) if max_norm else 1
        speed = [0.9 * v + factor * g for v, g in zip(speed, gradients)]
        weight, bias = weight - RATE * speed[0], bias - RATE * speed[1]
        assert_weights(step, weight, bias)
    assert step.loss_scale == (1 if scaler == "none" else 256)


@pytest.mark.parametrize(("bad", "place", "accumulate_steps", "scaler", "device_target"), [
    (np.inf, 0, 1, "static", "CPU"), (1e30, 0, 1, "dynamic", "Ascend"), (1e30, 0, 1, "dynamic", "GPU"),
    (1e30, 0, 4, "dynamic", "CPU"), (np.nan, 7, 4, "dynamic", "CPU")])
def test_an_overflow_skips_the_step_and_halves_a_dynamic_scale(bad, place, accumulate_steps, scaler, device_target):
    step = build(ms_loss_scaler=scaler, accumulate_steps=accumulate_steps, device_target=device_target)
    x = X.copy()
    x[place, 0] = bad
    for halved in (128, 64):
        assert not run(step, x)[1]
        assert step.loss_scale == (halved if scaler == "dynamic" else 256)
    assert_unchanged(step)
    # The next good step starts from the same weights, without momentum and without earlier gradients.
    assert run(step)[1]
    _, by_weight, by_bias = loss_and_gradients(WEIGHT, BIAS)
    assert_weights(step, WEIGHT - RATE * by_weight, BIAS - RATE * by_bias)


@pytest.mark.parametrize(("mix", "mix_dtype", "scale"), [(True, "float16", 512), (True, "bfloat16", 1), (False, "bfloat16", 512)])
@pytest.mark.parametrize("scaler", ["static", "dynamic"])
def test_bfloat16_has_no_loss_scale(scaler, mix, mix_dtype, scale):
    built = build_scaler(SimpleNamespace(ms_loss_scaler=scaler, ms_loss_scaler_value=512.0, mix=mix, mix_dtype=mix_dtype))
    built.adjust(Tensor(True))
    assert built.scale_value.asnumpy() == scale and hasattr(built, "counter") == (scaler == "dynamic" and scale > 1)


@pytest.mark.parametrize("accumulate_steps", [1, 4])
def test_a_dynamic_scale_doubles_after_2000_good_steps(accumulate_steps):
    step = build(ms_loss_scaler="dynamic", accumulate_steps=accumulate_steps)
    step.scaler.counter.set_data(Tensor(1998, step.scaler.counter.dtype))
    assert [run(step) and step.loss_scale for _ in range(3)] == [256, 512, 512]


class OtherRank(SingleProcess):
    """Two processes with the same gradients, except that a gradient of the second one is infinite or not."""
    size, overflowed = 2, True

    def all_reduce(self, array):
        array *= 2
        if self.overflowed:
            array[-1] = np.inf


@pytest.mark.parametrize("accumulate_steps", [1, 2])
def test_an_overflow_on_another_process_skips_the_step(accumulate_steps):
    step = build(group=OtherRank(), ms_loss_scaler="dynamic", accumulate_steps=accumulate_steps)
    assert not run(step)[1] and step.loss_scale == 128
    assert_unchanged(step)
    step.group.overflowed = False
    assert run(step)[1] and step.loss_scale == 128
    _, by_weight, by_bias = loss_and_gradients(WEIGHT, BIAS)
    assert_weights(step, WEIGHT - RATE * by_weight, BIAS - RATE * by_bias)


def test_the_flag_of_a_chip_counts_from_the_start_of_a_step_to_its_end(monkeypatch):
    """On Ascend 910A, amp.all_finite returns whether the chip's flag is clear, and clears it."""
    flag = ["set by an evaluation"]

    def read_and_clear(_):
        clear = not flag
        flag.clear()
        return Tensor(clear)

    monkeypatch.setattr("src.train.step.amp.all_finite", read_and_clear)
    step = build(device_target="Ascend", accumulate_steps=2)

    def overflowing(number):
        for place, part in enumerate(parts(step)):
            yield part
            if place == number:
                flag.append("set")

    applied = [result_of(step, overflowing(number)).applied for number in (None, 0, None, 1, None)]
    assert applied == [True, False, True, False, True]


@pytest.mark.parametrize(("mode", "accumulate_steps"), [(ms.GRAPH_MODE, 1), (ms.GRAPH_MODE, 2), (ms.PYNATIVE_MODE, 2)])
def test_a_skipped_step_leaves_the_running_statistics(mode, accumulate_steps):
    """The last micro-batch has an infinite loss or feature. A good step then updates the statistics once for each micro-batch,
    with momentum 0.1."""
    ms.set_context(mode=mode)
    step = build(NormalisedForward(), accumulate_steps=accumulate_steps)
    x = np.random.default_rng(0).normal(3, 2, (2, 3, 1, 2)).astype(np.float32)
    good, infinite = (Tensor(x), Tensor(np.float32(1))), x.copy()
    infinite[0, 1] = np.inf
    before = [parameter.asnumpy().copy() for parameter in step.parameters()]
    for bad in ((good[0], Tensor(np.float32(np.nan))), (Tensor(infinite), good[1])):
        assert not result_of(step, [good] * (accumulate_steps - 1) + [bad]).applied
        for parameter, value in zip(step.parameters(), before):
            np.testing.assert_array_equal(parameter.asnumpy(), value)
    assert result_of(step, [good] * accumulate_steps).applied
    mean, variance = (parameter.asnumpy() for parameter in step.statistics)
    kept = 0.9**accumulate_steps
    np.testing.assert_allclose(mean, (1 - kept) * x.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(variance, kept + (1 - kept) * x.var((0, 2, 3), ddof=1), rtol=1e-5)


@pytest.mark.parametrize("device_target", ["CPU", "GPU", "Ascend"])
def test_a_step_is_one_graph_and_waits_for_nothing(monkeypatch, device_target):
    """No value of a tensor is read until the result is."""
    ms.set_context(mode=ms.GRAPH_MODE)
    step, called = build(device_target=device_target), []
    run(step)
    call = Graph.__call__
    monkeypatch.setattr(Graph, "__call__", lambda graph, *tensors: called.append(graph.graph_name) or call(graph, *tensors))
    inputs = parts(step)
    for name in ("asnumpy", "__bool__", "__float__", "__int__", "item"):
        monkeypatch.setattr(Tensor, name, lambda *_: pytest.fail("a tensor is read"))
    numbers = step.run(CANVAS, inputs, RATE)
    monkeypatch.undo()
    assert called == [f"step {CANVAS}"] and StepResult.read(numbers).applied


def test_the_statistics_that_training_changes():
    network = nn.SequentialCell(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.SyncBatchNorm(2),
                                nn.BatchNorm2d(2, use_batch_statistics=False))
    assert [parameter.name for parameter in moving_statistics(network)] == [
        f"{layer}.{name}" for layer in (0, 2) for name in ("moving_mean", "moving_variance")]


class Layers(nn.Cell):
    """A weight, a bias, and the scale and shift of a BatchNorm."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1, has_bias=True)
        self.norm = nn.BatchNorm2d(3)


@pytest.mark.parametrize(("only", "filter_bias_and_bn", "mode"), [
    (slice(None), True, ms.GRAPH_MODE), (slice(None), True, ms.PYNATIVE_MODE), (slice(None), False, ms.PYNATIVE_MODE),
    (slice(1), True, ms.PYNATIVE_MODE), (slice(1, None), True, ms.PYNATIVE_MODE)])
def test_the_optimizer_equals_momentum_in_numpy(only, filter_bias_and_bn, mode):
    """Also with only weights or only biases and BatchNorm parameters."""
    ms.set_context(mode=mode)
    rng, decay = np.random.default_rng(0), 0.1
    parameters = Layers().trainable_params()[only]
    for parameter in parameters:
        parameter.set_data(Tensor(rng.normal(size=parameter.shape).astype(np.float32)))
    cfg = SimpleNamespace(weight_decay=decay, momentum=0.9, nesterov=False, filter_bias_and_bn=filter_bias_and_bn)
    optimizer = Momentum(cfg, parameters)
    assert [p.name for p in optimizer.parameters] == [p.name for p in parameters]
    values = [p.asnumpy().astype(np.float64) for p in parameters]
    moments = [np.zeros_like(value) for value in values]
    for rate in (0.5, 0.02):
        gradients = [rng.normal(size=p.shape).astype(np.float32) for p in parameters]
        optimizer(Tensor(rate, ms.float32), tuple(map(Tensor, gradients)), Tensor(True))
        for i, gradient in enumerate(gradients):
            decays = values[i].ndim > 1 or not filter_bias_and_bn
            moments[i] = 0.9 * moments[i] + gradient + decay * decays * values[i]
            values[i] = values[i] - rate * moments[i]
        for parameter, value in zip(parameters, values):
            np.testing.assert_allclose(parameter.asnumpy(), value, rtol=1e-5, atol=1e-6, err_msg=parameter.name)


def test_nesterov_on_the_cpu_is_an_error():
    cfg = SimpleNamespace(weight_decay=0.1, momentum=0.9, nesterov=True, filter_bias_and_bn=True)
    with pytest.raises(UserError, match="optimizer.nesterov has no effect in MindSpore's CPU operator"):
        Momentum(cfg, Layers().trainable_params())


@pytest.mark.parametrize(("sizes", "ends"), [
    ([1, 1, 1], [1, 2, 3]), ([1] * 9, [3, 6, 9]), ([4, 4, 1, 3, 6, 6], [2, 5, 6]), ([1, 2, 3, 30, 2, 1, 33, 1, 20], [4, 7, 9])])
def test_buckets_worked_by_hand(sizes, ends):
    """Each bucket has about a third of the numbers, and its operators have the same fusion number. A single process and the CPU
    have no all-reduce in the graph."""
    parameters = [Parameter(Tensor(np.zeros(size, np.float32)), name=f"p{number}") for number, size in enumerate(sizes)]
    for size, device_target in ((1, "Ascend"), (2, "CPU")):
        assert AllReduce(SimpleNamespace(size=size), device_target, parameters).in_graph is None
        assert ms.get_auto_parallel_context("all_reduce_fusion_config") == []
    try:
        reducer = AllReduce(SimpleNamespace(size=2), "Ascend", parameters).in_graph
        fused = [operator.attrs["fusion"] for operator in reducer.op_list[1:]]
        assert np.cumsum([len(list(bucket)) for _, bucket in groupby(fused)]).tolist() == ends
    finally:
        ms.reset_auto_parallel_context()
