"""The graphs of training, with its gradients, and of inference: which operators they are made of, as Ascend and GPU run them."""
import functools
import re
from pathlib import Path

import mindspore as ms
import pytest
from mindspore import nn, ops
from mindspore.train import mind_ir_pb2

from src.config import with_settings
from src.detector import build_detector
from src.models.faster_rcnn import InferenceForward, TrainingForward
from tests.helpers.ascend_operators import CONVERTER, LIMITS, ON_AI_CPU, in_converter
from tests.helpers.small_detector import CANVAS, NUM_CLASSES, OLDER_RECIPE, small_batch, small_config

# Operators that are documented under the name of the function that creates them.
DOCUMENTED_AS = {"ClampScalar": "clamp", "Concat": "cat", "ReLU": "relu", "ReduceAll": "all", "SumExt": "sum",
                 "Divs": "div", "Muls": "mul", "LessScalar": "less", "AddScalar": "add", "EqScalar": "equal",
                 "SplitWithSize": "split", "ZerosLikeExt": "zeros_like"}
# The gradients of documented operators, which have no documentation of their own.
GRADIENT = re.compile(r"\w+Grad(V2)?|\w+Backprop\w+")
# Nodes of the graph that no device computes.
STRUCTURE = {"Constant", "Depend", "Load", "MakeTuple", "TupleGetItem", "UpdateState"}
# Why an operator with a limit is there nevertheless.
EXCEPTIONS = {
    "NMSWithMask": "src.config.checks.check_device_limits refuses more boxes",
    "TopK": "it sorts: test_the_best_are_sorted",
    "Conv2D": "has no groups in ResNet",
    "Tile": "none of the tensors has more than 5 dimensions",
    "GatherDGradV2": "of the logits of RoIs and sampled anchors, R x (K + 1) and S x 3 numbers, on one launch each"}

CASES = {"default": {}, "older recipe, torchvision's stem": {**OLDER_RECIPE, "backbone.stem_pool": "torchvision",
                                                             "backbone.frozen_2stage": False}}


class WithGradients(nn.Cell):
    """Losses, and the gradients of the weights."""

    def __init__(self, forward):
        super().__init__(auto_prefix=False)
        self.forward = forward
        self.weights = ms.ParameterTuple(forward.trainable_params())
        self.gradient = ops.GradOperation(get_by_list=True, sens_param=True)

    def construct(self, *columns):
        losses = self.forward(*columns)
        return losses, self.gradient(self.forward, self.weights)(*columns, ops.ones_like(losses))


@pytest.fixture(params=[(what, case) for what in ("training", "inference") for case in CASES], ids=" ".join)
def graph(request, tmp_path_factory):
    """The exported graph of the small detector."""
    what, case = request.param
    return exported(what, case, tmp_path_factory.getbasetemp())


@functools.cache
def exported(what, case, folder):
    cfg = with_settings(small_config(), {"device_target": "Ascend", **CASES[case]})
    network = build_detector(cfg, NUM_CLASSES)
    if what == "training":
        cell, inputs = WithGradients(TrainingForward(network, cfg, NUM_CLASSES, CANVAS)), small_batch()
    else:
        cell, inputs = InferenceForward(network, cfg, CANVAS), small_batch()[:2]
    path = folder / "graph.mindir"
    ms.export(cell.set_train(what == "training"), *inputs, file_name=str(path), file_format="MINDIR")
    model = mind_ir_pb2.ModelProto()
    model.ParseFromString(path.read_bytes())
    return model


def operators(model):
    """Names of the operators of a graph."""
    nodes = [node for graph in (model.graph, *model.functions) for node in graph.node]
    return {re.sub(r"^REF::|:\d+$", "", node.op_type) for node in nodes} - STRUCTURE


def documented_platforms(name):
    """The platforms that MindSpore's documentation of an operator lists."""
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    for known in (name, snake, DOCUMENTED_AS.get(name, "")):
        found = re.search(r"Supported Platforms:\s*\n\s*(.*)", getattr(getattr(ops, known, None), "__doc__", None) or "")
        if found:
            return set(re.findall(r"``(\w+)``", found.group(1)))
    return set()


def test_operators_are_documented_for_all_devices(graph):
    used = operators(graph)
    assert {"Conv2D", "NMSWithMask", "ROIAlign", "MaxPool"} <= used
    lacking = {name: documented_platforms(name) for name in used
               if not GRADIENT.fullmatch(name) and documented_platforms(name) != {"Ascend", "GPU", "CPU"}}
    assert lacking == {}


def test_operators_run_on_the_ai_cores(graph):
    """None of those that fall to the AI CPU, or have limits, but the EXCEPTIONS."""
    assert {name: LIMITS[name] for name in operators(graph) & set(LIMITS) - set(EXCEPTIONS)} == {}


def test_exceptions_are_in_use(tmp_path_factory):
    assert set(EXCEPTIONS) <= operators(exported("training", "default", tmp_path_factory.getbasetemp())) & set(LIMITS)


def test_the_best_are_sorted(graph):
    sorts = [attribute.i for primitive in graph.primitives if primitive.op_type == "TopK"
             for attribute in primitive.attribute if attribute.name == "sorted"]
    assert sorts and all(sorts)


def test_no_float64(graph):
    """Which no AI core computes."""
    def types(attribute):
        yield from (tensor.data_type for tensor in attribute.tensors)
        for value in attribute.values:
            yield from types(value)

    nodes = [node for function in (graph.graph, *graph.functions) for node in function.node]
    found = {kind for node in nodes for attribute in node.attribute if attribute.name == "shape" for kind in types(attribute)}
    assert mind_ir_pb2.TensorProto.FLOAT in found and mind_ir_pb2.TensorProto.DOUBLE not in found


def test_the_list_is_that_of_the_package():
    """ON_AI_CPU is what the installed MindSpore's converter for Ascend names, where the package has one."""
    package = Path(ms.__file__).parent
    if not (package / CONVERTER).is_file():
        pytest.skip("this MindSpore has no plugin for Ascend")
    assert in_converter(package) == ON_AI_CPU
