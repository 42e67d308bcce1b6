"""MindSpore's mode, with a graph for tests that ask for one."""
import mindspore as ms
import pytest


@pytest.fixture(autouse=True)
def operator_by_operator():
    """PyNative mode on the CPU, which needs no compilation, for all tests that do not ask for a graph."""
    ms.set_device("CPU")
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.fixture
def graph_mode(operator_by_operator):
    ms.set_context(mode=ms.GRAPH_MODE)
