"""src/train/all_reduce.py: the all-reduce of gradients on devices, where it can be tested without one."""
from itertools import groupby
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from src.detector import build_detector
from src.train.all_reduce import build_all_reduce
from tests.helpers.small_detector import NUM_CLASSES, small_config


@pytest.fixture(autouse=True)
def _parallel_context_of_the_test():
    yield
    ms.reset_auto_parallel_context()


def exchanges(parameters):
    """Return the parameters of each all-reduce bucket; MindSpore's operators of a bucket have the same fusion number."""
    reducer = build_all_reduce(SimpleNamespace(size=2), "Ascend", parameters).in_graph
    numbered = zip([operator.attrs["fusion"] for operator in reducer.op_list[1:]], parameters)
    return [[parameter for _, parameter in group] for _, group in groupby(numbered, lambda pair: pair[0])]


def test_a_detector_s_gradients_travel_in_three_exchanges_of_about_a_third():
    """The backward pass computes the heads' gradients first. Their all-reduce does not wait for the backbone."""
    parameters = build_detector(small_config(), NUM_CLASSES).trainable_params()
    found = exchanges(parameters)
    assert [parameter.name for part in found for parameter in part] == [parameter.name for parameter in parameters]
    assert len(found) == 3
    sizes = [sum(parameter.asnumpy().nbytes for parameter in part) for part in found]
    largest = max(parameter.asnumpy().nbytes for parameter in parameters)
    # Each of its two ends differs from a third by at most half a parameter.
    assert max(abs(size - sum(sizes) / 3) for size in sizes) <= largest
    assert {parameter.name.split(".")[0] for parameter in found[0]} == {"backbone"}
    assert found[-1][-1].name.startswith("box_head.")


@pytest.mark.parametrize(("sizes", "ends"), [
    ([1, 1, 1], [1, 2, 3]), ([1] * 9, [3, 6, 9]), ([4, 4, 1, 3, 6, 6], [2, 5, 6]), ([1, 2, 3, 30, 2, 1, 33, 1, 20], [4, 7, 9])])
def test_splits_worked_by_hand(sizes, ends):
    parameters = [Parameter(Tensor(np.zeros(size, np.float32)), name=f"p{number}") for number, size in enumerate(sizes)]
    assert np.cumsum([len(part) for part in exchanges(parameters)]).tolist() == ends


def test_one_process_sends_nothing_and_the_cpu_nothing_in_the_graph():
    for size, device_target in ((1, "Ascend"), (2, "CPU")):
        assert build_all_reduce(SimpleNamespace(size=size), device_target, []).in_graph is None
        assert ms.get_auto_parallel_context("all_reduce_fusion_config") == []
