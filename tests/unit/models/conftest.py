"""MindSpore's device and mode, and functions on arrays."""
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
    """Graph mode."""
    ms.set_context(mode=ms.GRAPH_MODE)


@pytest.fixture(scope="session")
def computed():
    """A function that runs `function`, a cell or a function of tensors, on arrays and returns arrays."""
    def compute(function, *arrays):
        outputs = function(*(Tensor(np.asarray(array)) for array in arrays))
        return tuple(o.asnumpy() for o in outputs) if isinstance(outputs, tuple) else outputs.asnumpy()
    return compute
