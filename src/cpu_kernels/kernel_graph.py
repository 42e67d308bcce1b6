"""The layers of a network of convolutions as a list of numbers, which the kernel in network.cc runs as one operator."""
from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import mindspore as ms
from mindspore import nn

# The values of `Kind` in network.h.
FROM_PLANES, FROM_ROWS, CONVOLUTION, MAX_POOL, SUBSAMPLE, MERGE, BATCH_NORM = range(7)
NATIVE, ROWS, PLANES = range(3)
BF16, F32 = 2, 3


@dataclasses.dataclass
class Step:
    """A layer, with the fields of `Layer` in network.h. The index of a layer is also the index of its result among the values."""

    kind: int
    source: int
    channels: int
    addend: int = -1
    weight: int = -1
    relu: bool = False
    wide: bool = False
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    same: bool = False
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, bottom, left, right
    bilinear: bool = False


@dataclasses.dataclass
class Weight:
    """The parameters of a layer.

    A convolution has weight; or weight and bias; or weight, gamma, beta, mean and variance with eps. A separate BatchNorm has
    gamma and beta with eps and momentum, which is the weight of the new batch in the moving statistics.
    """

    parameters: tuple
    trainable: bool
    eps: float = 0.0
    momentum: float = 0.0

    @property
    def kind(self) -> int:
        """Return 0 for a convolution without bias, 1 with bias, 2 with stored statistics; 1 for a BatchNorm."""
        return min(len(self.parameters) - 1, 2)

    def with_gradient(self) -> tuple:
        """Return the parameters that get a gradient. With stored statistics, gamma and beta are constants."""
        return self.parameters[: 1 + (self.kind == 1)] if self.trainable else ()


class KernelGraph:
    """Collects the layers of a network. Each method adds one layer and returns the index of its value.

    Args:
        mixed: True for products in bfloat16 with sums in float32, False for products in float32.
        trained: whether parameters that require a gradient get a gradient.
    """

    def __init__(self, mixed: bool, trained: bool):
        self.mixed, self.trained = mixed, trained
        self.steps: list[Step] = []
        self.weights: list[Weight] = []
        self.statistics: list[ms.Parameter] = []  # moving mean and variance of each BATCH_NORM
        self.outputs: list[tuple[int, int, bool]] = []
        self.num_inputs = 0
        self.input_gradients = False

    def _add(self, **fields) -> int:
        self.steps.append(Step(**fields))
        return len(self.steps) - 1

    def add_input(self, channels: int, rows: bool = False, gradient: bool = False) -> int:
        """Add the next input, before any layer. With `gradient`, all inputs have a gradient.

        It is float32 (B, C, H, W). With `rows` it is (M, ...): rows of C numbers in the type of the products.
        """
        self.num_inputs += 1
        self.input_gradients = gradient
        return self._add(kind=FROM_ROWS if rows else FROM_PLANES, source=self.num_inputs - 1, channels=channels)

    def add_output(self, value: int, form: int, differentiable: bool = True) -> None:
        """Add an output: a value as stored (NATIVE), as float32 rows (ROWS) or as float32 (B, C, H, W) (PLANES)."""
        self.outputs.append((value, form, differentiable))

    def convolution(self, x: int, conv: nn.Cell, norm: nn.Cell | None = None, relu: bool = False, addend: int = -1,
                    wide: bool = False, constant: bool = False) -> int:
        """Add an nn.Conv2d or nn.Dense, then a BatchNorm with stored statistics; `constant`: the weight gets no gradient."""
        parameters = [conv.weight]
        if norm is not None:
            parameters += [norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance]
        elif conv.has_bias:
            parameters.append(conv.bias)
        trainable = self.trained and not constant and conv.weight.requires_grad
        fields = {} if isinstance(conv, nn.Dense) else _geometry(conv)
        if fields.get("kernel") == (1, 1) and fields["stride"] == 2 and not any(fields["pad"]) and fields["groups"] == 1:
            x = self.subsample(x)
            fields["stride"] = 1
        self.weights.append(Weight(tuple(parameters), trainable, norm.eps if norm is not None else 0.0))
        return self._add(kind=CONVOLUTION, source=x, channels=conv.weight.shape[0], addend=addend,
                         weight=len(self.weights) - 1, relu=relu, wide=wide, **fields)

    def batch_norm(self, x: int, norm: nn.Cell, relu: bool = False, addend: int = -1) -> int:
        """Add an nn.BatchNorm2d with batch statistics (arXiv:1502.03167), which also updates its stored statistics."""
        trainable = self.trained and norm.gamma.requires_grad
        self.weights.append(Weight((norm.gamma, norm.beta), trainable, norm.eps, norm.momentum))
        self.statistics += [norm.moving_mean, norm.moving_variance]
        return self._add(kind=BATCH_NORM, source=x, channels=self.steps[x].channels, addend=addend,
                         weight=len(self.weights) - 1, relu=relu)

    def relu(self, x: int) -> int:
        """Apply ReLU to the result of a convolution or BatchNorm that no other layer reads."""
        self.steps[x].relu = True
        return x

    def max_pool(self, x: int, same: bool) -> int:
        """Add max pooling of 3x3 cells with stride 2, with padding 1 or with TensorFlow's SAME padding."""
        return self._add(kind=MAX_POOL, source=x, channels=self.steps[x].channels, kernel=(3, 3), stride=2, pad=(1, 1, 1, 1),
                         same=same)

    def subsample(self, x: int) -> int:
        """Add a layer that keeps every second row and column."""
        return self._add(kind=SUBSAMPLE, source=x, channels=self.steps[x].channels, stride=2)

    def merge(self, fine: int, coarse: int, bilinear: bool) -> int:
        """Add fine + coarse, with coarse upsampled to the size of fine."""
        return self._add(kind=MERGE, source=fine, addend=coarse, channels=self.steps[fine].channels, bilinear=bilinear)

    def parameters(self) -> tuple[list, list, list]:
        """Return all parameters in the kernel's order: those trained here, those trained by another graph, and frozen ones.

        Raises:
            ValueError: several layers use a weight that is trained here; the kernel does not add their gradients.
        """
        groups: tuple[list, list, list] = [], [], []
        for weight in self.weights:
            own = weight.with_gradient()
            for i, parameter in enumerate(weight.parameters):
                groups[0 if i < len(own) else 1 if parameter.requires_grad else 2].append(parameter)
        if len({*map(id, groups[0])}) < len(groups[0]) or {*map(id, groups[0])} & {*map(id, groups[1])}:
            raise ValueError("a weight that is trained belongs to several layers of a kernel graph")
        # All other weights may be used by several layers.
        trained, elsewhere, frozen = (list({id(parameter): parameter for parameter in group}.values()) for group in groups)
        return trained, elsewhere, frozen

    def saved(self) -> list[int]:
        """Return the values that the gradient needs: inputs of trainable convolutions, BatchNorm and pooling; ReLU results."""
        needed, saved = self._needed(), set()
        reached = {value for value, _, differentiable in self.outputs if differentiable}
        for number in range(len(self.steps) - 1, -1, -1):
            step = self.steps[number]
            if number not in reached or not needed[number] or step.kind < CONVOLUTION:
                continue
            reached |= {step.source, step.addend}
            if step.relu:
                saved.add(number)
            if step.kind in (MAX_POOL, BATCH_NORM) or step.kind == CONVOLUTION and self.weights[step.weight].trainable:
                saved.add(step.source)
        return sorted(saved)

    def _needed(self):
        """Return, for each value, whether its gradient is needed."""
        needed: list[bool] = []
        for step in self.steps:
            if step.kind < CONVOLUTION:
                needed.append(self.input_gradients)
                continue
            trainable = step.weight >= 0 and self.weights[step.weight].trainable
            needed.append(trainable or needed[step.source] or (step.addend >= 0 and needed[step.addend]))
        return needed

    def sizes(self, inputs: Sequence[Sequence[int]]) -> list[tuple[int, int, int, int]]:
        """Return the size (B, C, H, W) of each value for these input shapes; rows (M, ...) have the size (1, C, 1, M)."""
        sizes: list[tuple[int, int, int, int]] = []
        for step in self.steps:
            if step.kind == FROM_ROWS:
                sizes.append((1, step.channels, 1, inputs[step.source][0]))
            elif step.kind == FROM_PLANES:
                batch, channels, height, width = inputs[step.source]
                sizes.append((batch, channels, height, width))
            else:
                batch, _, height, width = sizes[step.source]
                sizes.append((batch, step.channels, _output_size(step, height, step.kernel[0], sum(step.pad[:2])),
                              _output_size(step, width, step.kernel[1], sum(step.pad[2:]))))
        return sizes

    def numbers(self) -> list[int]:
        """Return the graph as the numbers that network.h reads.

        Raises:
            ValueError: a wide result has a ReLU or an addend, is read by a layer, or is an output in a form other than ROWS.
        """
        wide = {number for number, step in enumerate(self.steps) if step.wide}
        read = {value for step in self.steps if step.kind >= CONVOLUTION for value in (step.source, step.addend)}
        others = {value for value, form, _ in self.outputs if form != ROWS}
        if wide & (read | others) or any(self.steps[number].relu or self.steps[number].addend >= 0 for number in wide):
            raise ValueError("a wide result can only be an output of rows, without a ReLU or an addend")
        numbers = [BF16 if self.mixed else F32, self.num_inputs, int(self.input_gradients), len(self.steps)]
        for step, needed in zip(self.steps, self._needed()):
            numbers += map(int, (
                step.kind, step.source, step.addend, step.weight, step.relu, step.wide, *step.kernel, step.stride, step.dilation,
                step.groups, step.same, *step.pad, step.bilinear, step.channels, needed))
        numbers.append(len(self.weights))
        places = {id(parameter): place for place, parameter in enumerate(itertools.chain(*self.parameters()))}
        for weight in self.weights:
            own = [places[id(parameter)] for parameter in weight.parameters]
            numbers += [weight.kind, int(weight.trainable), *own, *[-1] * (5 - len(own))]
        numbers.append(len(self.outputs))
        for value, form, differentiable in self.outputs:
            numbers += [value, form, int(differentiable)]
        saved = self.saved()
        return [*numbers, len(saved), *saved]

    def result_shapes(self, inputs: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return, for these input shapes, the shapes of the outputs, new statistics and saved values."""
        sizes, shapes = self.sizes(inputs), []
        for value, form, _ in self.outputs:
            batch, channels, height, width = sizes[value]
            # Other outputs keep the shape that the detector's cells expect, with channels last in memory.
            shapes.append([batch, height, width, channels] if form == ROWS else [batch, channels, height, width])
        shapes += [list(parameter.shape) for parameter in self.statistics]
        return [*shapes, *(list(sizes[value]) for value in self.saved())]

    @property
    def dtype(self) -> ms.Type:
        """Return the type of the products."""
        return ms.bfloat16 if self.mixed else ms.float32

    def result_dtypes(self) -> tuple[ms.Type, ...]:
        """Return the types of the tensors of `result_shapes`."""
        outputs = tuple(self.dtype if form == NATIVE else ms.float32 for _, form, _ in self.outputs)
        return outputs + (ms.float32,) * len(self.statistics) + (self.dtype,) * len(self.saved())

    def gradient_shapes(self, inputs: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the gradient shapes of the inputs, if they have gradients, and of the trainable parameters.

        Args:
            inputs: shapes of the inputs that have gradients, without channels.
        """
        shapes = [[size[0], step.channels // (math.prod(size[1:]) if step.kind == FROM_ROWS else 1), *size[1:]]
                  for step, size in zip(self.steps, inputs)] if self.input_gradients else []
        return shapes + [list(parameter.shape) for parameter in self.parameters()[0]]

    def gradient_dtypes(self) -> tuple[ms.Type, ...]:
        """Return the types of the tensors of `gradient_shapes`."""
        inputs = self.steps[: self.num_inputs] if self.input_gradients else []
        return (*(self.dtype if step.kind == FROM_ROWS else ms.float32 for step in inputs),
                *[ms.float32] * len(self.parameters()[0]))


def _output_size(step, side, kernel, pad):
    """Return the output size of a convolution or pooling along one axis."""
    if step.same:
        return -(-side // step.stride)
    return (side + pad - (kernel - 1) * step.dilation - 1) // step.stride + 1


def _geometry(conv):
    """Return kernel size, stride, padding, dilation and groups of an nn.Conv2d."""
    padding = conv.padding if isinstance(conv.padding, (tuple, list)) else (conv.padding,) * 4
    return {"kernel": tuple(conv.kernel_size), "stride": conv.stride[-1], "same": conv.pad_mode == "same",
            "pad": tuple(padding) if conv.pad_mode == "pad" else (0, 0, 0, 0), "dilation": conv.dilation[-1],
            "groups": conv.group}
