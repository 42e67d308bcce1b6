"""Scales an image to its canvas with ONNX operators, as src/dataset/resize.py does, with OpenCV's arithmetic.

OpenCV's linear interpolation of 8-bit images uses integers. These operators do the same, so the scaled pixels are identical.
(ONNX's Resize computes in floating point and differs by up to one grey level.)
"""
from __future__ import annotations

import numpy as np

from src.dataset.resize import Scaling
from src.export.onnx_graph import Graph

# OpenCV's coefficients have 11 bits. It drops 4 bits between the passes over columns and rows, then 16 and 2 bits at the end.
UNIT, FIRST_SHIFT, SECOND_SHIFT, LAST_SHIFT = 1 << 11, 1 << 4, 1 << 16, 1 << 2


def fitted_sizes(graph: Graph, size: str, canvases: tuple[tuple[int, int], ...], scaling: Scaling) -> str:
    """Return `src.dataset.resize.fitted_size` of an image on each canvas, (C, 2) int64.

    Args:
        size: (2,) int64, height and width of the image.
    """
    exact = graph.cast(size, np.float64)
    limits = np.array(canvases, np.float64)
    scale = graph.add("ReduceMin", graph.add("Div", limits, exact), axes=[1])
    fitting = graph.add("Round", graph.add("Mul", exact, scale))
    if scaling.shortest is not None:
        scale = graph.add("Div", np.float64(scaling.shortest), graph.add("ReduceMin", exact))
        if scaling.longest is not None:
            scale = graph.add("Min", scale, graph.add("Div", np.float64(scaling.longest), graph.add("ReduceMax", exact)))
        wanted = graph.add("Floor", graph.add("Add", graph.add("Mul", exact, scale), _slack(graph, exact)))
        wanted = graph.add("Max", wanted, np.float64(1))
        beyond = graph.add("ReduceMax", graph.cast(graph.add("Greater", wanted, limits), np.int32), axes=[1])
        fitting = graph.add("Where", graph.add("Equal", beyond, np.int32(0)), wanted, fitting)
    return graph.cast(graph.add("Max", fitting, np.float64(1)), np.int64)


def _slack(graph, exact):
    """Return 0 in a runtime with 64-bit floats, else 1e-3. OpenVINO's 32-bit floats would often round 800.0 down to 799."""
    one = graph.add("Div", exact, exact)
    held = graph.add("Sub", graph.add("Add", one, np.float64(1e-12)), one)
    return graph.add("Where", graph.add("Greater", held, np.float64(0)), np.float64(0), np.float64(1e-3))


def largest(graph: Graph, sizes: str) -> str:
    """Return the index of the canvas with the largest scaled image, an int64 scalar; ties take the first. sizes: (C, 2) int64."""
    areas = graph.cast(graph.add("ReduceProd", sizes, axes=[1], keepdims=0), np.int32)
    return graph.add("ArgMax", areas, axis=0, keepdims=0)


def on_canvas(graph: Graph, image: str, sides: tuple[str, str, str, str], canvas: tuple[int, int], shrink: str) -> str:
    """Return images (B, H, W, 3) uint8 on their canvas, with zeros elsewhere, for image (B, h, w, 3) uint8.

    Args:
        sides: tensors (2,) int64 for y and x: the image size (h, w), its size on the canvas, and two lengths before and after
            scaling, whose ratio is the scale factor.
        canvas: (H, W).
        shrink: linear or area, see `src.dataset.resize.resize`.
    """
    axes = list(zip(*(graph.add("Split", pair, np.array([1, 1]), axis=0, outputs=2) for pair in sides), canvas))
    if shrink == "linear":
        return _linear(graph, image, axes)
    smaller = graph.add("ReduceMax", graph.cast(graph.add("Less", sides[1], sides[0]), np.int64), keepdims=0)
    [result] = graph.choose(smaller, [lambda branch: [_linear(branch, image, axes)], lambda branch: [_area(branch, image, axes)]],
                            [(np.uint8, (None, *canvas, 3))])
    return result


def _linear(graph, image, axes):
    """Scale as cv2.resize with INTER_LINEAR. `axes`: (size, scaled, before, after, side of the canvas) for y and x."""
    (rows, row_weights), (columns, column_weights) = (_taps(graph, axis) for axis in axes)
    total = np.int32(LAST_SHIFT // 2)
    for row, row_weight in zip(rows, row_weights):
        line = graph.add("Gather", image, row, axis=1)
        left, right = (graph.add("Mul", graph.cast(graph.add("Gather", line, column, axis=2), np.int32),
                                 graph.reshape(weight, 1, 1, -1, 1)) for column, weight in zip(columns, column_weights))
        line = graph.add("Div", graph.add("Add", left, right), np.int32(FIRST_SHIFT))
        line = graph.add("Div", graph.add("Mul", line, graph.reshape(row_weight, 1, -1, 1, 1)), np.int32(SECOND_SHIFT))
        total = graph.add("Add", line, total)
    return graph.cast(graph.add("Div", total, np.int32(LAST_SHIFT)), np.uint8)


def _taps(graph, axis):
    """Return the two source pixels of each canvas position and their weights, which add up to UNIT, or to 0 outside the image.

    Position i is at (i + 0.5) * before / after - 0.5 between source pixels. Here, numerators and denominators are integers.
    OpenCV stores this number in 32 bits before it takes the fraction.

    Returns:
        ((length,), (length,)) int64 and ((length,), (length,)) int32.
    """
    old, new, before, after, length = axis
    place = np.arange(length)
    double = graph.add("Mul", after, np.array([2]))
    # (place + 0.5) * before / after - 0.5 + 1, which is never negative.
    numerator = graph.add("Add", graph.add("Mul", before, 2 * place + 1), after)
    whole = graph.add("Div", numerator, double)
    rest = graph.add("Sub", numerator, graph.add("Mul", whole, double))
    whole = graph.add("Sub", whole, np.array([1]))
    base = graph.cast(whole, np.float32)
    exact = graph.add("Add", base, graph.add("Div", graph.cast(rest, np.float32), graph.cast(double, np.float32)))
    fraction = graph.add("Sub", exact, base)
    last = graph.add("Sub", old, np.array([1]))
    pixels = [graph.add("Max", graph.add("Min", tap, last), np.array([0]))
              for tap in (whole, graph.add("Add", whole, np.array([1])))]
    inside = graph.cast(graph.add("Less", place, new), np.float32)
    shares = graph.add("Sub", np.float32(1), fraction), fraction
    weights = [graph.cast(graph.add("Round", graph.add("Mul", graph.add("Mul", share, np.float32(UNIT)), inside)), np.int32)
               for share in shares]
    return pixels, weights


def _area(graph, image, axes):
    """Scale as cv2.resize with INTER_AREA if neither side grows: the mean of the covered pixels, from differences of prefix sums.

    OpenCV sums in another order and in 32 bits, so a mean near .5 may be rounded differently.
    """
    values = graph.cast(image, np.int32)
    for number, axis in zip((1, 2), axes):
        values = _means(graph, values, number, *axis)
    doubled = [graph.add("Equal", before, graph.add("Mul", after, np.array([2]))) for _, _, before, after, _ in axes]
    # OpenCV rounds means of 2x2 pixels half up, and all other means half to even.
    up = graph.add("Floor", graph.add("Add", values, np.float64(0.5)))
    return graph.cast(graph.add("Where", graph.add("And", *doubled), up, graph.add("Round", values)), np.uint8)


def _means(graph, values, axis, old, new, before, after, length):
    """Return the mean of `values` between the borders of each canvas position along an axis, float64; 0 outside the image."""
    shape = [-1 if number == axis else 1 for number in range(4)]
    sums = graph.add("CumSum", values, np.int64(axis), exclusive=1)
    border = graph.add("Min", graph.add("Mul", before, np.arange(length + 1)), graph.add("Mul", old, after))
    whole = graph.add("Min", graph.add("Div", border, after), graph.add("Sub", old, np.array([1])))
    rest = graph.add("Sub", border, graph.add("Mul", whole, after))
    part = graph.reshape(graph.add("Div", graph.cast(rest, np.float64), graph.cast(after, np.float64)), *shape)
    upto = graph.add("Add", graph.cast(graph.add("Gather", sums, whole, axis=axis), np.float64),
                     graph.add("Mul", graph.cast(graph.add("Gather", values, whole, axis=axis), np.float64), part))
    above, below = (graph.add("Gather", upto, np.arange(length) + step, axis=axis) for step in (1, 0))
    inside = graph.cast(graph.add("Less", np.arange(length), new), np.float64)
    covered = graph.add("Sub", *(graph.add("Gather", border, np.arange(length) + step) for step in (1, 0)))
    covered = graph.cast(graph.add("Max", covered, np.array([1])), np.float64)
    share = graph.add("Mul", inside, graph.add("Div", graph.cast(after, np.float64), covered))
    return graph.add("Mul", graph.add("Sub", above, below), graph.reshape(share, *shape))
