"""The graphs of training and inference have only operators that MindSpore documents for Ascend, GPU and CPU."""
import re

import mindspore as ms
import pytest
from mindspore import ops
from mindspore.train import mind_ir_pb2

from src.config import with_settings
from src.detector import build_detector
from src.models.faster_rcnn import InferenceForward, TrainingForward
from tests.helpers.small_detector import CANVAS, NUM_CLASSES, OLDER_RECIPE, small_batch, small_config

# Operators that are documented under the name of the function that creates them.
DOCUMENTED_AS = {"ClampScalar": "clamp", "Concat": "cat", "ReLU": "relu", "ReduceAll": "all", "SumExt": "sum",
                 "Divs": "div", "Muls": "mul", "LessScalar": "less"}
# Nodes of the graph that no device computes.
STRUCTURE = {"Constant", "Load", "MakeTuple", "TupleGetItem", "UpdateState"}


def operators(forward, inputs, path):
    """Names of the operators of an exported graph."""
    ms.export(forward, *inputs, file_name=str(path), file_format="MINDIR")
    model = mind_ir_pb2.ModelProto()
    model.ParseFromString(path.with_suffix(".mindir").read_bytes())
    nodes = [node for graph in (model.graph, *model.functions) for node in graph.node]
    return {re.sub(r"^REF::|:\d+$", "", node.op_type) for node in nodes}


def documented_platforms(name):
    """The platforms that MindSpore's documentation of an operator lists."""
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    for known in (name, snake, DOCUMENTED_AS.get(name, "")):
        found = re.search(r"Supported Platforms:\s*\n\s*(.*)", getattr(getattr(ops, known, None), "__doc__", None) or "")
        if found:
            return set(re.findall(r"``(\w+)``", found.group(1)))
    return set()


@pytest.mark.parametrize("settings", [{}, OLDER_RECIPE], ids=["default", "older recipe"])
@pytest.mark.parametrize("what", ["training", "inference"])
def test_operators_are_documented_for_all_devices(tmp_path, what, settings):
    cfg = with_settings(small_config(), settings)
    network = build_detector(cfg, NUM_CLASSES)
    forward = TrainingForward(network, cfg, NUM_CLASSES, CANVAS) if what == "training" else InferenceForward(network, cfg, CANVAS)
    forward.set_train(what == "training")
    used = operators(forward, small_batch() if what == "training" else small_batch()[:2], tmp_path / "graph")
    assert {"Conv2D", "NMSWithMask", "Gather", "BatchMatMul"} <= used
    lacking = {name: documented_platforms(name) for name in used - STRUCTURE
               if documented_platforms(name) != {"Ascend", "GPU", "CPU"}}
    assert lacking == {}
