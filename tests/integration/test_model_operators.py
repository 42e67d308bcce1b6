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
from tests.helpers.exported_graphs import WithGradients, export_graph, nodes_of, operators, output_types, temporary_tensors
from tests.helpers.small_detector import CANVAS, NUM_ANCHORS, NUM_CLASSES, OLDER_RECIPE, PADDED, small_batch, small_config

# Operators documented under the name of the function that creates them.
DOCUMENTED_AS = {"ClampScalar": "clamp", "Concat": "cat", "ReLU": "relu", "ReduceAll": "all", "SumExt": "sum",
                 "Divs": "div", "Muls": "mul", "LessScalar": "less", "AddScalar": "add", "EqScalar": "equal",
                 "SplitWithSize": "split", "ZerosLikeExt": "zeros_like"}
# Gradients of documented operators; the gradients have no separate documentation.
GRADIENT = re.compile(r"\w+Grad(V2)?|\w+Backprop\w+")
# Reasons to use an operator despite its restriction.
EXCEPTIONS = {
    "NMSWithMask": "src.config.load.check_device_limits refuses more boxes",
    "TopK": "it sorts: test_the_best_are_sorted",
    "Conv2D": "has no groups in ResNet",
    "Tile": "none of the tensors has more than 5 dimensions"}
# Operators that graphs of devices had in training, and their results for two images of 768x1280.
GONE = {"GatherDGradV2": "the gradient of logits and deltas of RoIs and sampled anchors, on the AI CPU; masks replace it",
        "UnsortedSegmentSum": "163,681 x 256 numbers, the gradient of patches around sampled anchors; masks replace it"}
# Operators that compute the IoU of all boxes and anchors, (B, G, N). BroadcastTo wrote eight tensors of this size.
OF_IOU = {"Minimum", "Maximum", "Sub", "ReLU", "Mul", "Add", "Div", "GreaterEqual"}

CASES = {"default": {}, "older recipe, torchvision's stem": {**OLDER_RECIPE, "backbone.stem_pool": "torchvision",
                                                             "backbone.frozen_2stage": False},
         "bfloat16": {"mix": True, "mix_dtype": "bfloat16"}, "CPU": {"device_target": "CPU"}}


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
    return export_graph(cell.set_train(what == "training"), inputs, folder)


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


def test_slow_operators_are_gone(tmp_path_factory):
    """They remain in the graph of a CPU without kernels."""
    graphs = [exported("training", case, tmp_path_factory.getbasetemp()) for case in ("default", "CPU")]
    assert [operators(graph) & set(GONE) for graph in graphs] == [set(), set(GONE)]
    shape = 2, PADDED, NUM_ANCHORS
    assert {name for name, node in nodes_of(graphs[0]) if shape in (own for _, own in output_types(node))} == OF_IOU


def test_the_memory_of_a_small_graph(tmp_path):
    """Four operators write 60 bytes each. At most three tensors are needed at once: the sum, and input and output of exp."""
    class Small(nn.Cell):
        def construct(self, x, y):
            total = x + y
            root = ops.sqrt(total)
            return (ops.exp(root) * total).reshape(-1)

    model = export_graph(Small(), [ms.Tensor(np.ones((3, 5), np.float32)), ms.Tensor(np.ones((1, 5), np.float32))], tmp_path)
    assert temporary_tensors(model) == ({(name, ((3, 5),)): 60 for name in ("Add", "Sqrt", "Exp", "Mul")}, 180)


def test_the_best_are_sorted(graph):
    sorts = [attribute.i for primitive in graph.primitives if primitive.op_type == "TopK"
             for attribute in primitive.attribute if attribute.name == "sorted"]
    assert sorts and all(sorts)


def test_no_float64(graph):
    """No AI core computes float64."""
    found = {kind for _, node in nodes_of(graph) for kind, _ in output_types(node)}
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
