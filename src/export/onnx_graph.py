"""Builds ONNX graphs: `op.Add(a, b)` of a graph `op` appends the operator Add and returns the name of its output."""
from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from mindspore import nn
from onnx import helper, numpy_helper

# ONNX Runtime supports these versions since 1.15.
OPSET, IR_VERSION = 17, 8


class Graph:
    """The operators of a graph in execution order, and its constants.

    Each ONNX operator is a method, called with its inputs, its attributes by name, and `outputs`, the number of its outputs. It
    returns the name of the output, or a tuple of names. An input is the name of a tensor, a NumPy array, which becomes a constant
    (equal arrays share one), or None if it is omitted. `src.cpu_kernels.lowering` calls the methods for cells of the network.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._names: dict[tuple, str] = {}
        self._count = 0

    def __getattr__(self, operator: str) -> Callable[..., Any]:
        return functools.partial(self._append, operator)

    def reshape(self, tensor: str | np.ndarray, *shape: int) -> str:
        """Return the tensor reshaped to `shape`, in which one number may be -1."""
        return self.Reshape(tensor, np.array(shape, np.int64))

    def cast(self, tensor: str, kind: type) -> str:
        """Return the tensor converted to the NumPy type `kind`."""
        return self.Cast(tensor, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def choose(self, number: str, cases: Sequence[Callable[[], tuple[str, ...]]], outputs: Sequence[tuple]) -> tuple[str, ...]:
        """Return the outputs of case `number`, an int64 scalar. Only this case is computed.

        `cases` are functions that add operators and return their outputs; `outputs` has (NumPy type, shape) of each output.
        """
        if len(cases) == 1:
            return cases[0]()
        outer, branches = self.nodes, {}
        for name, part in (("then_branch", cases[:1]), ("else_branch", cases[1:])):
            self.nodes = []
            rest = self.Sub(number, np.int64(1)) if len(part) > 1 else number
            names = [self.Identity(result) for result in self.choose(rest, part, outputs)]
            branches[name] = helper.make_graph(self.nodes, f"{name}_{self._count}", [], _describe(dict(zip(names, outputs))))
        self.nodes = outer
        chosen = self.If(self.Equal(number, np.int64(0)), outputs=len(outputs), **branches)
        return chosen if len(outputs) > 1 else (chosen,)

    def convolution(self, x: str, conv: nn.Conv2d, norm: nn.Cell | None = None, relu: bool = False,
                    addend: str | None = None) -> str:
        """Add an nn.Conv2d, then BatchNorm with stored statistics, which is folded into it, then `addend`, then ReLU."""
        parameters = [conv.weight.asnumpy(), *([conv.bias.asnumpy()] if conv.has_bias else [])]
        if norm is not None:
            gamma, beta, mean, variance = (p.asnumpy() for p in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance))
            scale = gamma / np.sqrt(variance + np.float32(norm.eps))
            parameters = [parameters[0] * scale.reshape(-1, 1, 1, 1), beta - mean * scale]
        # Same padding: sides of inputs are multiples of the stride.
        same = [max(k - conv.stride[-1], 0) if conv.pad_mode == "same" else 0 for k in conv.kernel_size]
        pads = np.broadcast_to(conv.padding, 4)[[0, 2, 1, 3]].tolist() if conv.pad_mode == "pad" else [
            *(side // 2 for side in same), *(side - side // 2 for side in same)]
        x = self.Conv(x, *parameters, kernel_shape=conv.kernel_size, strides=[conv.stride[-1]] * 2,
                      dilations=[conv.dilation[-1]] * 2, group=conv.group, pads=pads)
        x = x if addend is None else self.Add(x, addend)
        return self.Relu(x) if relu else x

    def relu(self, x: str) -> str:
        """Return max(x, 0)."""
        return self.Relu(x)

    def max_pool(self, x: str, same: bool) -> str:
        """Add 3x3 max pooling with stride 2, with padding 1 or with TensorFlow's SAME padding."""
        return self.MaxPool(x, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1] if same else [1, 1, 1, 1])

    def subsample(self, x: str) -> str:
        """Keep every second row and column."""
        return self.MaxPool(x, kernel_shape=[1, 1], strides=[2, 2], pads=[0, 0, 0, 0])

    def merge(self, fine: str, coarse: str, bilinear: bool) -> str:
        """Return fine + coarse, with coarse resized to the size of fine."""
        how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"} if bilinear else {
            "mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        return self.Add(fine, self.Resize(coarse, None, None, self.Shape(fine), **how))

    def model(self, inputs: dict[str, tuple], outputs: dict[str, tuple], defaults: dict[str, np.ndarray] | None = None,
              metadata: dict[str, str] | None = None) -> onnx.ModelProto:
        """Return the graph as an ONNX model with `metadata`, and check it.

        inputs: {name: (NumPy type, shape)}; outputs: {name: (tensor, NumPy type, shape)}; defaults: {name: default value} of
        further, optional inputs.
        """
        defaults = defaults or {}
        for name, (tensor, _, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [tensor], [name], name=name))
        inputs = {**inputs, **{name: (array.dtype, array.shape) for name, array in defaults.items()}}
        constants = [numpy_helper.from_array(array, name) for name, array in {**self.constants, **defaults}.items()]
        graph = helper.make_graph(self.nodes, "FasterRCNN", _describe(inputs),
                                  _describe({name: output[1:] for name, output in outputs.items()}), constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                                  producer_name="faster_rcnn")
        onnx.checker.check_model(model, full_check=True)
        helper.set_model_props(model, metadata or {})
        return model

    def _append(self, operator, *inputs, outputs=1, **attributes):
        names = [self._name(tensor) for tensor in inputs]
        results = tuple(f"{operator.lower()}_{self._count}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs))
        self._count += 1
        self.nodes.append(helper.make_node(operator, names, results, name=results[0], **attributes))
        return results if outputs > 1 else results[0]

    def _name(self, tensor):
        if tensor is None or isinstance(tensor, str):
            return tensor or ""
        array = np.asarray(tensor, order="C")
        key = array.dtype.str, array.shape, hashlib.sha256(array.data).digest()
        if key not in self._names:
            self._names[key] = f"constant_{len(self.constants)}"
            self.constants[self._names[key]] = array
        return self._names[key]


def _describe(values):
    return [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)
            for name, (kind, shape) in values.items()]
