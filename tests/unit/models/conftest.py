"""The device, and functions on arrays."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor


@pytest.fixture(autouse=True)
def operator_by_operator():
    """PyNative mode on the CPU, which needs no compilation, for all tests that do not ask for a graph."""
    ms.set_device("CPU")
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.fixture
def graph_mode(operator_by_operator):
    """Graph mode; integration/test_model_modes.py has the whole detector in both."""
    ms.set_context(mode=ms.GRAPH_MODE)


@pytest.fixture(scope="session")
def computed():
    """A function that runs `function`, of tensors or a cell, on arrays, and returns arrays."""
    def compute(function, *arrays):
        outputs = function(*(Tensor(np.asarray(array)) for array in arrays))
        return tuple(o.asnumpy() for o in outputs) if isinstance(outputs, tuple) else outputs.asnumpy()
    return compute
