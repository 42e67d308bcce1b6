"""Builds an ONNX graph operator by operator."""
from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# ONNX Runtime supports these versions since 1.15.
OPSET, IR_VERSION = 17, 8


class Graph:
    """A list of operators in execution order, with their constants.

    Tensors are represented by their names. A NumPy array as an input of an operator becomes a constant. Equal arrays share one
    constant.

    Args:
        outer: the parent graph, if this graph is a branch. Its tensors can be used here, and its constants are shared.
    """

    def __init__(self, outer: Graph | None = None):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = outer.constants if outer else {}
        self._names: dict[tuple, str] = outer._names if outer else {}
        self._counter: list[int] = outer._counter if outer else [0]  # counts the operators of all branches

    def add(self, operator: str, *inputs, outputs: int = 1, **attributes) -> Any:
        """Append an ONNX operator, and return the name of its output, or a tuple of names. An input of None is omitted."""
        names = [self._name(tensor) for tensor in inputs]
        results = tuple(f"{operator.lower()}_{self._counter[0]}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs))
        self._counter[0] += 1
        self.nodes.append(helper.make_node(operator, names, results, name=results[0], **attributes))
        return results if outputs > 1 else results[0]

    def reshape(self, tensor, *shape: int) -> str:
        """Return the tensor reshaped to `shape`, in which one number may be -1."""
        return self.add("Reshape", tensor, np.array(shape, np.int64))

    def cast(self, tensor, kind: type) -> str:
        """Return the tensor converted to the NumPy type `kind`."""
        return self.add("Cast", tensor, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def choose(self, number: str, cases: list[Callable[[Graph], list[str]]], outputs: list[tuple]) -> list[str]:
        """Return the outputs of case `number`. Only this case is computed.

        Args:
            number: an int64 scalar.
            cases: functions that add operators to the graph they receive, and return their outputs.
            outputs: (NumPy type, shape) of each output.
        """
        if len(cases) == 1:
            return cases[0](self)
        branches = []
        for part, name in ((cases[:1], "then_branch"), (cases[1:], "else_branch")):
            branch = Graph(self)
            names = [branch.add("Identity", result) for result in
                     branch.choose(branch.add("Sub", number, np.int64(1)) if len(part) > 1 else number, part, outputs)]
            described = _describe({result: output for result, output in zip(names, outputs)})
            branches.append((name, helper.make_graph(branch.nodes, f"{name}_{self._counter[0]}", [], described)))
        chosen = self.add("If", self.add("Equal", number, np.int64(0)), outputs=len(outputs), **dict(branches))
        return list(chosen) if len(outputs) > 1 else [chosen]

    def model(self, inputs: dict, outputs: dict, defaults: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
        """Return the graph as an ONNX model, and check it.

        Args:
            inputs: {name: (NumPy type, shape)}.
            outputs: {name: (NumPy type, shape)}, with names set by `rename`.
            defaults: {name: array}, default values of further, optional inputs.
        """
        defaults = defaults or {}
        inputs = {**inputs, **{name: (array.dtype, array.shape) for name, array in defaults.items()}}
        constants = [numpy_helper.from_array(array, name) for name, array in {**self.constants, **defaults}.items()]
        graph = helper.make_graph(self.nodes, "FasterRCNN", _describe(inputs), _describe(outputs), constants)
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
        array = np.asarray(tensor, order="C")
        key = array.dtype.str, array.shape, hashlib.sha256(array.data).digest()
        if key not in self._names:
            self._names[key] = f"constant_{len(self.constants)}"
            self.constants[self._names[key]] = array
        return self._names[key]


def _describe(values):
    return [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)
            for name, (kind, shape) in values.items()]
