"""Types in which the graph's convolutions and dense layers compute. A CPU can export a bfloat16 graph, but not run it."""
import re
from collections import Counter

import mindspore as ms
from mindspore.train import mind_ir_pb2

from src.config import with_settings
from src.detector import build_detector
from src.models.faster_rcnn import TrainingForward
from tests.helpers.small_detector import CANVAS, NUM_CLASSES, small_batch, small_config


def test_products_of_the_graph_are_in_bfloat16(tmp_path):
    cfg = with_settings(small_config(), {"mix": True, "mix_dtype": "bfloat16"})
    forward = TrainingForward(build_detector(cfg, NUM_CLASSES), cfg, NUM_CLASSES, CANVAS)
    forward.set_train()
    ms.export(forward, *small_batch(), file_name=str(tmp_path / "graph"), file_format="MINDIR")
    model = mind_ir_pb2.ModelProto()
    model.ParseFromString((tmp_path / "graph.mindir").read_bytes())
    found = [(re.sub(r"^REF::|:\d+$", "", node.op_type), node.attribute[0].tensors[0].data_type)
             for graph in (model.graph, *model.functions) for node in graph.node
             if re.match(r"REF::(Conv2D|MatMul):", node.op_type)]
    # 20 of ResNet18, 8 of the pyramid, 3 of the RPN for each of 5 levels and for the sampled anchors; 4 dense layers.
    bfloat16 = mind_ir_pb2.TensorProto.DataType.BFLOAT16
    assert Counter(found) == {("Conv2D", bfloat16): 46, ("MatMul", bfloat16): 4}
