"""Graph mode on the CPU."""
import mindspore as ms
import pytest


@pytest.fixture(autouse=True)
def _graph_mode_on_cpu():
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
