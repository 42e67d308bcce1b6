"""Calls of every kernel entry point on small inputs, for tests without MindSpore's operators."""
import mindspore as ms
import numpy as np
from mindspore import nn

from src.cpu_kernels.kernel_graph import BF16, NATIVE, PLANES, ROWS, KernelGraph

KINDS = {ms.float32: np.float32, ms.bfloat16: np.uint16}


def two_convolutions(mixed, channels):
    """Return a kernel graph of two convolutions and the shape of its input."""
    convolutions = nn.Conv2d(channels, 140, 3, pad_mode="same", has_bias=True), nn.Conv2d(140, 33, 1, has_bias=True)
    graph = KernelGraph(mixed, trained=True)
    value = graph.add_input(channels, gradient=True)
    for conv in convolutions:
        value = graph.convolution(value, conv, relu=True)
    graph.add_output(value, PLANES)
    return graph, (2, channels, 45, 61)


def every_layer(mixed):
    """Return a kernel graph with a layer of every kind and an output of every form, and the shape of its input."""
    def conv(*args, **options):
        return nn.Conv2d(*args, pad_mode="same", **options)

    graph = KernelGraph(mixed, trained=True)
    x = graph.convolution(graph.add_input(3, gradient=True), conv(3, 20, 7, stride=2))
    x = graph.max_pool(graph.batch_norm(x, nn.BatchNorm2d(20), relu=True), same=False)
    coarse = graph.convolution(x, conv(20, 24, 1, stride=2), nn.BatchNorm2d(24))
    coarse = graph.convolution(coarse, conv(24, 24, 3, group=4, dilation=2, has_bias=True), addend=coarse, relu=True)
    fine = graph.convolution(x, conv(20, 24, 3))
    for bilinear in (True, False):
        fine = graph.merge(fine, coarse, bilinear)
    graph.add_output(fine, NATIVE)
    graph.add_output(graph.subsample(fine), PLANES)
    graph.add_output(graph.convolution(fine, conv(24, 5, 1, has_bias=True), wide=True), ROWS)
    return graph, (2, 3, 50, 39)


def network_call(graph, shape, normal):
    """Return the calls of the forward pass and of a backward pass with random values."""
    def array(size, dtype):
        # Random bits could be NaN in bfloat16, so the values are ones.
        return normal(*size) if dtype == ms.float32 else np.full(size, 0x3f80, np.uint16)

    head = (np.int32(graph.numbers()), np.int32([shape]),
            np.float32([[weight.eps, weight.momentum] for weight in graph.weights]))
    parameters = [0.1 * np.abs(normal(*parameter.shape)) if "gamma" in parameter.name or "variance" in parameter.name
                  else 0.1 * normal(*parameter.shape) for group in graph.parameters() for parameter in group]
    statistics = [normal(*parameter.shape) for parameter in graph.statistics]
    results = list(zip(map(tuple, graph.result_shapes([shape])), graph.result_dtypes()))
    yield "Network", (*head, normal(*shape), *parameters, *statistics), [(size, KINDS[dtype]) for size, dtype in results]
    number = len(graph.outputs)
    saved = [np.abs(array(*result)) for result in results[number + len(statistics):]]
    sides = shape[0], *shape[2:]
    douts = [array(*result) for result in results[:number]]
    yield "NetworkGradient", (*head, np.zeros(sides, bool), *douts, *parameters, *saved), [
        (tuple(size), np.float32) for size in graph.gradient_shapes([sides])]


def calls():
    """Return entry points, inputs, and output shapes and types: small, large enough to use several threads, and large."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    for mixed, channels in ((False, 17), (False, 130), (True, 17)):  # the second case uses Winograd's algorithm
        yield from network_call(*two_convolutions(mixed, channels), normal)
    for mixed in (False, True):
        yield from network_call(*every_layer(mixed), normal)
    corners = np.sort(rng.uniform(-3, 40, (2, 30, 2, 2)), axis=2).reshape(2, 30, 4).astype(np.float32)
    sizes = (2, 9, 40, 37), (2, 9, 20, 19)
    boxes = corners, rng.integers(0, 2, 60).astype(np.int32), np.int32([7, 2, 1])
    for dtype in (np.float32, np.uint16):
        *levels, dout = (normal(*size) if dtype is np.float32 else rng.integers(0x3f00, 0x4000, size).astype(dtype)
                         for size in (*sizes, (60, 9, 7, 7)))
        yield "RoIAlign", (*boxes, *levels), [((60, 9, 7, 7), dtype)]
        call, shapes = (*boxes, dout), [np.zeros(level.shape[2:], bool) for level in levels]
        yield "RoIAlignGrad", (*call, *call, *shapes), [(level.shape, dtype) for level in levels]
    scores = np.full((2, 100, 4), 0.5, np.float32)
    yield "Preprocess", (rng.integers(0, 256, (2, 9, 31, 3), dtype=np.uint8), np.float32([[9, 31], [4, 17]]), normal(3, 256),
                         np.int32([2, 1, 0])), [((2, 3, 9, 31), np.float32)]
    yield "NMS", (scores + np.abs(normal(2, 100, 4)) * np.float32([0, 0, 1, 1]), np.int32([60, 70, 100]),
                  np.float32([0.5])), [((2, 100), bool)]
    candidates = np.sort(rng.integers(0, 40, (2, 5000, 2, 2)), axis=2).reshape(2, 5000, 4).astype(np.float32)
    yield "Match", (candidates, corners, np.ones((2, 30), bool)), [((2, 5000), t) for t in (np.float32, np.int32, bool)]


def write_calls(path):
    """Write all calls to a file for tests/programs/run_kernels.cc; returns the names of the entry points."""
    names = []
    with open(path, "wb") as file:
        for name, inputs, outputs in calls():
            mixed = name.startswith("Network") and bool(inputs[0][0] == BF16)  # whether it needs products of bfloat16
            arrays = [*inputs, *(np.zeros(*output) for output in outputs)]
            file.write(f"{name} {len(inputs)} {int(mixed)} {len(arrays)}\n".encode())
            for array in arrays:
                # The kernels treat every type except float32 as bfloat16.
                file.write(" ".join(map(str, (array.dtype, array.nbytes, array.ndim, *array.shape))).encode() + b"\n")
                file.write(array.tobytes() + b"\n")
            names.append(name)
    return names
