"""Compiling and running one part: seconds, and what it computes as a short list of numbers."""
from __future__ import annotations

import statistics
import time
from typing import NamedTuple

import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops

from tools.device_check.bench import rng_of, uniform
from tools.device_check.expected import summary
from tools.device_check.parts import Part, tensors_of

RUNS, SECONDS = 5, 1.0          # of a part after its first run: at most so many, and none begins after so long
OUTPUT_SAMPLES, WEIGHT_SAMPLES = 256, 16


class Measured(NamedTuple):
    """What a part took and gave.

    Attributes:
        compile_s: seconds of the first run of the forward graph, and of the graph of gradients (None without).
        run_ms: medians of later runs; the graph of gradients computes the outputs as well.
        numbers: {tensor's name: its root mean square, and some of its elements}, float32.
    """
    compile_s: list[float | None]
    run_ms: list[float | None]
    numbers: dict[str, np.ndarray]


class Flat(nn.Cell):
    """A cell of tensors and tuples of tensors as one of tensors alone, whose gradients can be asked for by their places.

    Args:
        cell: gives a tensor or a tuple of tensors.
        lengths: of each argument, 0 for a tensor.
    """

    def __init__(self, cell: nn.Cell, lengths: list[int]):
        super().__init__(auto_prefix=False)
        self.cell, self.lengths = cell, tuple(lengths)

    def construct(self, *tensors):
        arguments, first = (), 0
        for length in self.lengths:
            if length:
                arguments += (tensors[first:first + length],)
            else:
                arguments += (tensors[first],)
            first += max(length, 1)
        outputs = self.cell(*arguments)
        return outputs if isinstance(outputs, tuple) else (outputs,)


class WeightedSum(nn.Cell):
    """The outputs `chosen` of a `Flat` of `count` arguments, multiplied by further arguments and summed up."""

    def __init__(self, flat: Flat, count: int, chosen: tuple[int, ...]):
        super().__init__(auto_prefix=False)
        self.flat, self.count, self.chosen = flat, count, chosen

    def construct(self, *tensors):
        outputs, total = self.flat(*tensors[:self.count]), 0.0
        for i, number in enumerate(self.chosen):
            total += (outputs[number] * tensors[self.count + i]).sum()
        return total


class Gradients(nn.Cell):
    """Gradients of a `WeightedSum` with respect to its arguments `wanted` and to `weights`, in a row."""

    def __init__(self, total: WeightedSum, wanted: tuple[int, ...], weights: list):
        super().__init__(auto_prefix=False)
        self.wanted, self.has_weights = wanted, bool(weights)
        self.gradient = ops.grad(total, wanted or None, ParameterTuple(weights) if weights else None)

    def construct(self, *tensors):
        if not (self.has_weights and self.wanted):
            return self.gradient(*tensors)
        of_inputs, of_weights = self.gradient(*tensors)
        return (of_inputs if isinstance(of_inputs, tuple) else (of_inputs,)) + of_weights


def measure(part: Part) -> Measured:
    """Run a part forward and, where it is differentiable, backward."""
    inputs = tensors_of(part.inputs)
    flat = Flat(part.cell, [len(value) if isinstance(value, tuple) else 0 for value in part.inputs])
    flat.set_train(part.cell.training)

    def forward():
        outputs = flat(*inputs)
        return part.changed or outputs

    compile_s, outputs = _first(forward)
    arrays = [output.asnumpy() for output in outputs]
    names = [weight.name for weight in part.changed] or part.names or [f"output {i}" for i in range(len(arrays))]
    samples = WEIGHT_SAMPLES if part.changed or part.names else OUTPUT_SAMPLES
    numbers = {name: summary(array, samples) for name, array in zip(names, arrays)}
    run_ms = _median_ms(forward)
    if not part.differentiable:
        return Measured([compile_s, None], [run_ms, None], numbers)

    chosen = tuple(i for i, array in enumerate(arrays) if array.dtype == np.float32)
    factors = [Tensor(uniform(rng_of(f"factor {i}"), arrays[i].shape)) for i in chosen]
    weights = part.cell.trainable_params()
    gradients = Gradients(WeightedSum(flat, len(inputs), chosen), part.wanted, weights).set_train(part.cell.training)
    backward_s, found = _first(lambda: gradients(*inputs, *factors))
    names = [f"gradient of input {i}" for i in part.wanted] + [f"gradient of {weight.name}" for weight in weights]
    for name, gradient in zip(names, found):
        numbers[name] = summary(gradient.asnumpy(), OUTPUT_SAMPLES if "input" in name else WEIGHT_SAMPLES)
    return Measured([compile_s, backward_s], [run_ms, _median_ms(lambda: gradients(*inputs, *factors))], numbers)


def _wait_for(outputs):
    """Graphs are only launched: wait for this one by reading the smallest tensor of its results."""
    min(outputs, key=lambda output: output.size).asnumpy()


def _first(run):
    start = time.perf_counter()
    outputs = run()
    _wait_for(outputs)
    return time.perf_counter() - start, outputs


def _median_ms(run):
    begin, seconds = time.perf_counter(), []
    while len(seconds) < RUNS and (not seconds or time.perf_counter() - begin < SECONDS):
        seconds.append(_first(run)[0])
    return 1000 * statistics.median(seconds)
