"""Graph mode on the CPU, and the compiled kernels."""
import mindspore as ms
import pytest

from src.cpu_kernels.library import library


@pytest.fixture(autouse=True)
def _graph_mode_on_cpu():
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)


@pytest.fixture(scope="session")
def kernels():
    """Path of the kernels."""
    path = library()
    if path is None:
        pytest.skip("the kernels cannot be built here")
    return path
