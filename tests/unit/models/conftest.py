"""The device, and a cell that runs a function in a compiled graph."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn


class _Graph(nn.Cell):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def construct(self, *arguments):
        return self.function(*arguments)


@pytest.fixture(autouse=True)
def operator_by_operator():
    """PyNative mode on the CPU, which needs no compilation, for all tests that do not ask for a graph."""
    ms.set_device("CPU")
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.fixture
def graph_mode(operator_by_operator):
    """Graph mode; integration/test_model_modes.py has the whole detector in both."""
    ms.set_context(mode=ms.GRAPH_MODE)


@pytest.fixture
def in_graph(graph_mode):
    """A function that runs `function`, a plain function or a cell, on arrays in graph mode and returns arrays."""
    def run(function, *arrays):
        cell = function if isinstance(function, nn.Cell) else _Graph(function)
        outputs = cell(*(Tensor(np.asarray(array)) for array in arrays))
        return tuple(o.asnumpy() for o in outputs) if isinstance(outputs, tuple) else outputs.asnumpy()
    return run
