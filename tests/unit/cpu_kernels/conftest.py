"""Graph mode on the CPU."""
import mindspore as ms
import pytest

from src.cpu_kernels.library import has_bf16_products


@pytest.fixture(autouse=True)
def _graph_mode_on_cpu():
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)


@pytest.fixture(autouse=True)
def _needs_products(request):
    """Skips what is `mixed` where oneDNN cannot multiply bfloat16."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if parameters.get("mixed") and not has_bf16_products():
        pytest.skip("the processor has no products of bfloat16")
