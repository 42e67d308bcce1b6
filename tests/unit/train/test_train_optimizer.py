"""The optimizer of src/train/step.py compared with momentum steps in NumPy."""
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.errors import UserError
from src.train.step import build_optimizer, set_learning_rate

DECAY, MOMENTUM, RATES = 0.1, 0.9, (0.5, 0.02)


class Network(nn.Cell):
    """A weight, a bias, and the scale and shift of a BatchNorm."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1, has_bias=True)
        self.norm = nn.BatchNorm2d(3)


def build(filter_bias_and_bn=True, decay=DECAY):
    cfg = SimpleNamespace(type="momentum", weight_decay=decay, momentum=MOMENTUM, nesterov=False,
                          filter_bias_and_bn=filter_bias_and_bn)
    rng = np.random.default_rng(0)
    parameters = Network().trainable_params()
    for parameter in parameters:
        parameter.set_data(Tensor(rng.normal(size=parameter.shape).astype(np.float32)))
    return parameters, build_optimizer(cfg, parameters)


def test_nesterov_is_refused_on_the_cpu_which_would_ignore_it():
    cfg = SimpleNamespace(weight_decay=DECAY, momentum=MOMENTUM, nesterov=True, filter_bias_and_bn=True)
    with pytest.raises(UserError, match="^optimizer.nesterov has no effect in MindSpore's CPU operator; set it to False.$"):
        build_optimizer(cfg, Network().trainable_params())


@pytest.mark.parametrize(("filter_bias_and_bn", "mode"), [(True, ms.GRAPH_MODE), (True, ms.PYNATIVE_MODE),
                                                          (False, ms.PYNATIVE_MODE)])
def test_two_steps(filter_bias_and_bn, mode):
    ms.set_context(mode=mode)
    parameters, optimizer = build(filter_bias_and_bn)
    rng = np.random.default_rng(1)
    values = [p.asnumpy().astype(np.float64) for p in parameters]
    moments = [np.zeros_like(value) for value in values]
    for rate in RATES:
        gradients = [rng.normal(size=p.shape).astype(np.float32) for p in parameters]
        set_learning_rate(optimizer, rate)
        optimizer(tuple(Tensor(gradient) for gradient in gradients))
        for i, gradient in enumerate(gradients):
            decays = values[i].ndim > 1 or not filter_bias_and_bn
            gradient = gradient + DECAY * decays * values[i]
            moments[i] = MOMENTUM * moments[i] + gradient
            values[i] = values[i] - rate * moments[i]
        for parameter, value in zip(parameters, values):
            np.testing.assert_allclose(parameter.asnumpy(), value, rtol=1e-5, atol=1e-6, err_msg=parameter.name)


def test_parameters_keep_their_order():
    parameters, optimizer = build()
    assert [p.name for p in optimizer.parameters] == [p.name for p in parameters]


@pytest.mark.parametrize("kind", ["weights", "biases"])
def test_one_kind_of_parameters_only(kind):
    layer = nn.Dense(2, 2)
    parameters = [layer.weight] if kind == "weights" else [layer.bias]
    cfg = SimpleNamespace(type="momentum", weight_decay=DECAY, momentum=0.0, nesterov=False, filter_bias_and_bn=True)
    optimizer = build_optimizer(cfg, parameters)
    before = parameters[0].asnumpy().copy()
    set_learning_rate(optimizer, 1.0)
    optimizer((Tensor(np.zeros_like(before)),))
    np.testing.assert_allclose(parameters[0].asnumpy(), before * (0.9 if kind == "weights" else 1), rtol=1e-6)
