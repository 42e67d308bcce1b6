"""src/models/precision.py: the layers that compute in float16, and errors for bfloat16."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.config import Config, with_settings
from src.models.precision import can_overflow, to_mixed_precision


class Network(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1, has_bias=True)
        self.norm = nn.BatchNorm2d(3)
        self.dense = nn.Dense(3 * 16, 2)

    def construct(self, x):
        convolved = self.conv(x)
        normalised = self.norm(convolved)
        return convolved, normalised, self.dense(normalised.reshape(x.shape[0], -1))


def test_convolutions_and_dense_layers_only():
    network = Network()
    x = Tensor(np.random.default_rng(0).normal(size=(2, 2, 4, 4)).astype(np.float32))
    exact = network(x)
    mixed = Network()
    ms.load_param_into_net(mixed, network.parameters_dict())
    assert to_mixed_precision(mixed) is mixed
    outputs = mixed(x)
    assert [output.dtype for output in exact] == [ms.float32] * 3
    assert [output.dtype for output in outputs] == [ms.float16, ms.float32, ms.float16]
    assert {parameter.dtype for parameter in mixed.get_parameters()} == {ms.float32}
    for output, wanted in zip(outputs, exact):
        # float16 has 11 bits.
        np.testing.assert_allclose(output.asnumpy(), wanted.asnumpy(), rtol=2**-7, atol=2**-7)
        assert np.abs(output.asnumpy() - wanted.asnumpy()).max() > 0


@pytest.mark.parametrize(("settings", "overflows"), [
    ({"mix_dtype": "bfloat16"}, False), ({"mix_dtype": "float16"}, True), ({"mix_dtype": "float16", "mix": False}, False)])
def test_float16_alone_can_overflow(settings, overflows):
    assert can_overflow(with_settings(Config(), settings)) == overflows
