"""Graphs exported as MindIR: their operators, and the memory of their temporary tensors."""
import re
from collections import Counter
from pathlib import Path

import mindspore as ms
from mindspore import nn, ops
from mindspore.train import mind_ir_pb2

# Nodes of the graph that no device computes, and nodes whose output is their input's memory.
STRUCTURE = {"Constant", "Depend", "Load", "MakeTuple", "TupleGetItem", "UpdateState"}
VIEWS = {"Depend", "ExpandDims", "Reshape", "Squeeze", "TupleGetItem"}
TYPES = mind_ir_pb2.TensorProto.DataType
BYTES = {TYPES.BOOL: 1, TYPES.UINT8: 1, TYPES.FLOAT16: 2, TYPES.BFLOAT16: 2, TYPES.INT64: 8, TYPES.FLOAT: 4, TYPES.INT32: 4}


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


def export_graph(cell: nn.Cell, inputs: list, folder: Path) -> mind_ir_pb2.ModelProto:
    """Return the compiled graph of a cell."""
    path = folder / "graph.mindir"
    ms.export(cell, *inputs, file_name=str(path), file_format="MINDIR")
    model = mind_ir_pb2.ModelProto()
    model.ParseFromString(path.read_bytes())
    return model


def nodes_of(model):
    """Return the (operator, node) pairs of a graph."""
    return [(re.sub(r"^REF::|:\d+$", "", node.op_type), node) for graph in (model.graph, *model.functions) for node in graph.node]


def operators(model):
    """Return the names of the operators in a graph."""
    return {name for name, _ in nodes_of(model)} - STRUCTURE


def output_types(node):
    """Return the (data type, shape) pairs of a node's outputs."""
    def leaves(attribute):
        yield from ((tensor.data_type, tuple(tensor.dims)) for tensor in attribute.tensors)
        for value in attribute.values:
            yield from leaves(value)

    return [leaf for attribute in node.attribute if attribute.name == "shape" for leaf in leaves(attribute)]


def temporary_tensors(model: mind_ir_pb2.ModelProto) -> tuple[Counter, int]:
    """Return the bytes of the outputs of all operators by (operator, shapes), and the most bytes that are needed at once.

    Each operator writes new memory, in the graph's order, except for VIEWS. Memory is freed after the last use. Inputs, weights
    and gradients of weights are not counted.
    """
    nodes = [(name, node) for name, node in nodes_of(model) if name not in STRUCTURE - VIEWS - {"MakeTuple"}]
    owners, sizes, last = {}, {}, {}  # owners: for each output, the nodes whose memory it uses
    written = Counter()
    for number, (name, node) in enumerate(nodes):
        used = {owner for source in node.input for owner in owners.get(source, ())}
        last.update(dict.fromkeys(used, number))
        if name in VIEWS or name == "MakeTuple":
            owners[node.output[0]] = used
            continue
        outputs = output_types(node)
        sizes[number] = sum(BYTES[kind] * count(shape) for kind, shape in outputs)
        owners[node.output[0]] = {number}
        written[name, tuple(shape for _, shape in outputs)] += sizes[number]
    live = peak = 0
    ends = {}
    for number in sizes:
        ends.setdefault(last.get(number, number), []).append(number)
    for number in range(len(nodes)):
        live += sizes.get(number, 0)
        peak = max(peak, live)
        live -= sum(sizes[own] for own in ends.get(number, ()))
    return written, peak


def count(shape):
    """Return the number of elements of a shape."""
    number = 1
    for side in shape:
        number *= side
    return number
