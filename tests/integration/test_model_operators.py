"""The operators and data types in the graphs of training, with gradients, and inference, as they run on Ascend and GPU."""
import functools
import re
import sys
from collections import Counter
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops
from mindspore.train import mind_ir_pb2

from src.config import with_settings
from src.detector import build_detector
from src.models.faster_rcnn import InferenceForward, TrainingForward
from tests.helpers.ascend_operators import APPROXIMATE, CONVERTER, INPUT_TYPES, LIMITS, ON_AI_CPU, in_converter
from tests.helpers.small_detector import CANVAS, NUM_CLASSES, OLDER_RECIPE, small_batch, small_config

# Operators documented under the name of the function that creates them.
DOCUMENTED_AS = {"ClampScalar": "clamp", "Concat": "cat", "ReLU": "relu", "ReduceAll": "all", "SumExt": "sum",
                 "Divs": "div", "Muls": "mul", "LessScalar": "less", "AddScalar": "add", "EqScalar": "equal",
                 "SplitWithSize": "split", "ZerosLikeExt": "zeros_like"}
# Gradients of documented operators; the gradients have no separate documentation.
GRADIENT = re.compile(r"\w+Grad(V2)?|\w+Backprop\w+")
# Nodes of the graph that no device computes.
STRUCTURE = {"Constant", "Depend", "Load", "MakeTuple", "TupleGetItem", "UpdateState"}
# Reasons to use an operator despite its restriction.
EXCEPTIONS = {
    "NMSWithMask": "src.config.load.check_device_limits refuses more boxes",
    "TopK": "it sorts: test_the_best_are_sorted",
    "Conv2D": "has no groups in ResNet",
    "Tile": "none of the tensors has more than 5 dimensions",
    "GatherDGradV2": "of the logits of RoIs and sampled anchors, R x (K + 1) and S x 3 numbers, on one launch each"}

CASES = {"default": {}, "older recipe, torchvision's stem": {**OLDER_RECIPE, "backbone.stem_pool": "torchvision",
                                                             "backbone.frozen_2stage": False},
         "bfloat16": {"mix": True, "mix_dtype": "bfloat16"}}


class WithGradients(nn.Cell):
    """Computes the losses and the gradients of the weights."""

    def __init__(self, forward):
        super().__init__(auto_prefix=False)
        self.forward = forward
        self.weights = ms.ParameterTuple(forward.trainable_params())
        self.gradient = ops.GradOperation(get_by_list=True, sens_param=True)

    def construct(self, *columns):
        losses = self.forward(*columns)
        return losses, self.gradient(self.forward, self.weights)(*columns, ops.ones_like(losses))


@pytest.fixture(params=[(what, case) for what in ("training", "inference") for case in list(CASES)[:2]], ids=" ".join)
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


def nodes_of(model):
    """Return the (operator, node) pairs of a graph."""
    return [(re.sub(r"^REF::|:\d+$", "", node.op_type), node) for graph in (model.graph, *model.functions) for node in graph.node]


def operators(model):
    """Return the names of the operators in a graph."""
    return {name for name, _ in nodes_of(model)} - STRUCTURE


def documented_platforms(name):
    """Return the platforms that MindSpore's documentation of an operator lists."""
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
    """No operator runs on the AI CPU or has restrictions, except for EXCEPTIONS."""
    assert {name: LIMITS[name] for name in operators(graph) & set(LIMITS) - set(EXCEPTIONS)} == {}


def test_the_best_are_sorted(graph):
    sorts = [attribute.i for primitive in graph.primitives if primitive.op_type == "TopK"
             for attribute in primitive.attribute if attribute.name == "sorted"]
    assert sorts and all(sorts)


def test_no_float64(graph):
    """No AI core computes float64."""
    def types(attribute):
        yield from (tensor.data_type for tensor in attribute.tensors)
        for value in attribute.values:
            yield from types(value)

    found = {kind for _, node in nodes_of(graph) for attribute in node.attribute if attribute.name == "shape"
             for kind in types(attribute)}
    assert mind_ir_pb2.TensorProto.FLOAT in found and mind_ir_pb2.TensorProto.DOUBLE not in found


def test_products_are_in_bfloat16(tmp_path_factory):
    """A CPU can export a bfloat16 graph, but not run it."""
    nodes = nodes_of(exported("inference", "bfloat16", tmp_path_factory.getbasetemp()))
    found = Counter((name, node.attribute[0].tensors[0].data_type) for name, node in nodes if name in ("Conv2D", "MatMul"))
    # 20 of ResNet18, 8 of the pyramid, 3 of the RPN for each of 5 levels; 4 dense layers.
    bfloat16 = mind_ir_pb2.TensorProto.DataType.BFLOAT16
    assert found == {("Conv2D", bfloat16): 43, ("MatMul", bfloat16): 4}


def test_what_910a_computes_in_float16_is_exact_or_known_to_be_approximate(monkeypatch, tmp_path_factory):
    """In a training step and inference, every number is exact in float16, except for the inputs in APPROXIMATE, which all occur.

    The images are large enough for priorities above 2048 and coordinates that float16 rounds.
    """
    names = {name for own in INPUT_TYPES.values() for name, types in own.items() if types == {"float16"}}
    calls = []  # (operator, calling module, array)
    for name in names:
        kind = getattr(ops, name)

        def record(operator, values, *others, name=name, call=kind.__call__):
            calls.append((name, sys._getframe(1).f_globals["__name__"], values.asnumpy()))
            return call(operator, values, *others)
        monkeypatch.setattr(kind, "__call__", record)
    canvas, proposals = (640, 1088), 2300
    top_n = {"pre_nms_top_n": proposals, "post_nms_top_n": proposals}
    cfg = with_settings(small_config(), {"device_target": "Ascend", "data.target_size": list(canvas),
                                         "rpn_head.train_proposal": top_n, "rpn_head.test_proposal": top_n})
    ms.set_device("CPU")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = build_detector(cfg, NUM_CLASSES)
    training = TrainingForward(network, cfg, NUM_CLASSES, canvas)
    rng = np.random.default_rng(0)
    image = ms.Tensor(rng.integers(0, 256, (2, *canvas, 3), dtype=np.uint8))
    columns = small_batch(training.num_anchors, training.num_proposals)
    columns[1] = ms.Tensor(np.float32([canvas] * 2))
    training(image, *columns[1:])
    InferenceForward(network, cfg, canvas).set_train(False)(image, columns[1])
    ms.set_context(mode=ms.GRAPH_MODE)
    exported_calls = Counter(name for what in ("training", "inference")
                             for name, _ in nodes_of(exported(what, "default", tmp_path_factory.getbasetemp())))
    assert Counter(name for name, *_ in calls) == {name: exported_calls[name] for name in names}
    rounded = set()
    for name, module, values in calls:
        columns = {"boxes": values[:, :4], "ranks": values[:, 4:]} if name == "NMSWithMask" else {"all": values}
        for column, part in columns.items():
            with np.errstate(over="ignore"):
                if not np.array_equal(part.astype(np.float16), part):
                    rounded.add((name, module, column))
    assert rounded == set(APPROXIMATE)
    assert {module for name, module, _ in calls if name == "TopK"} == {"src.models.matcher", "src.models.rpn"}
    assert max(len(values) for name, _, values in calls if name == "NMSWithMask") > 2048


def test_the_list_is_that_of_the_package():
    """ON_AI_CPU equals the list in the installed MindSpore's converter for Ascend, if the package contains one."""
    package = Path(ms.__file__).parent
    if not (package / CONVERTER).is_file():
        pytest.skip("this MindSpore has no plugin for Ascend")
    assert in_converter(package) == ON_AI_CPU
