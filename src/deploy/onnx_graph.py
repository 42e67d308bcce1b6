"""Building an ONNX graph operator by operator."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# ONNX Runtime reads these from 1.15 on.
OPSET, IR_VERSION = 17, 8


class Graph:
    """Operators in the order in which they run, and their constants.

    Tensors are represented by their names. A numpy array given as the input of an operator becomes a constant.
    """

    def __init__(self):
        self.nodes = []
        self.constants = {}

    def add(self, operator: str, *inputs, outputs: int = 1, **attributes) -> Any:
        """Append an operator of ONNX; an input of None is left out. Returns the name of its output, or a tuple of several."""
        names = [self._name(tensor) for tensor in inputs]
        number = len(self.nodes)
        results = tuple(f"{operator.lower()}_{number}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs))
        self.nodes.append(helper.make_node(operator, names, results, name=results[0], **attributes))
        return results if outputs > 1 else results[0]

    def reshape(self, tensor, *shape: int) -> str:
        """The tensor in another shape, of which one number may be -1."""
        return self.add("Reshape", tensor, np.array(shape, np.int64))

    def model(self, inputs: dict, outputs: dict) -> onnx.ModelProto:
        """The graph as an ONNX model, checked.

        Args:
            inputs: name -> (numpy type, shape).
            outputs: name -> (numpy type, shape), names that `rename` gave.
        """
        def describe(values):
            return [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)
                    for name, (kind, shape) in values.items()]

        constants = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "FasterRCNN", describe(inputs), describe(outputs), constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                                  producer_name="faster_rcnn")
        onnx.checker.check_model(model, full_check=True)
        return model

    def rename(self, tensor: str, name: str) -> None:
        """Give a tensor another name."""
        self.nodes.append(helper.make_node("Identity", [tensor], [name], name=name))

    def _name(self, tensor):
        if tensor is None:
            return ""
        if isinstance(tensor, str):
            return tensor
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.ascontiguousarray(tensor)
        return name
