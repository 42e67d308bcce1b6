"""MindSpore's mode, and skipped tests."""
import mindspore as ms
import pytest

from src.cpu_kernels.library import has_bf16_products


@pytest.fixture(autouse=True)
def _operator_by_operator():
    """PyNative mode on the CPU, which needs no compilation. integration/test_kernel_use.py tests the kernels in graphs."""
    ms.set_device("CPU")
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.fixture(autouse=True)
def _needs_products(request):
    """Skip `mixed` tests if oneDNN cannot multiply bfloat16."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if parameters.get("mixed") and not has_bf16_products():
        pytest.skip("the processor has no products of bfloat16")
