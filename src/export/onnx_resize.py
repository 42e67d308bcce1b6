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


def fitted_sizes(op: Graph, size: str, canvases: tuple[tuple[int, int], ...], scaling: Scaling) -> str:
    """Return `src.dataset.resize.fitted_size` on each canvas, (C, 2) int64, of an image of `size` (height, width), (2,) int64."""
    exact = op.cast(size, np.float64)
    limits = np.array(canvases, np.float64)
    scale = op.ReduceMin(op.Div(limits, exact), axes=[1])
    fitting = op.Round(op.Mul(exact, scale))
    if scaling.shortest is not None:
        scale = op.Div(np.float64(scaling.shortest), op.ReduceMin(exact))
        if scaling.longest is not None:
            scale = op.Min(scale, op.Div(np.float64(scaling.longest), op.ReduceMax(exact)))
        wanted = op.Max(op.Floor(op.Add(op.Mul(exact, scale), _slack(op, exact))), np.float64(1))
        beyond = op.ReduceMax(op.cast(op.Greater(wanted, limits), np.int32), axes=[1])
        fitting = op.Where(op.Equal(beyond, np.int32(0)), wanted, fitting)
    return op.cast(op.Max(fitting, np.float64(1)), np.int64)


def _slack(op, exact):
    """Return 0 in a runtime with 64-bit floats, else 1e-3. OpenVINO's 32-bit floats would often round 800.0 down to 799."""
    one = op.Div(exact, exact)
    held = op.Sub(op.Add(one, np.float64(1e-12)), one)
    return op.Where(op.Greater(held, np.float64(0)), np.float64(0), np.float64(1e-3))


def largest(op: Graph, sizes: str) -> str:
    """Return the index of the canvas with the largest scaled image, an int64 scalar; ties take the first. sizes: (C, 2) int64."""
    return op.ArgMax(op.cast(op.ReduceProd(sizes, axes=[1], keepdims=0), np.int32), axis=0, keepdims=0)


def on_canvas(op: Graph, image: str, sides: tuple[str, str, str, str], canvas: tuple[int, int], shrink: str) -> str:
    """Return images (B, H, W, 3) uint8 on their canvas, with zeros elsewhere, for image (B, h, w, 3) uint8.

    Args:
        sides: tensors (2,) int64 for y and x: the image size (h, w), its size on the canvas, and two lengths before and after
            scaling, whose ratio is the scale factor.
        canvas: (H, W).
        shrink: linear or area, see `src.dataset.resize.resize`.
    """
    axes = list(zip(*(op.Split(pair, np.array([1, 1]), axis=0, outputs=2) for pair in sides), canvas))
    if shrink == "linear":
        return _linear(op, image, axes)
    smaller = op.ReduceMax(op.cast(op.Less(sides[1], sides[0]), np.int64), keepdims=0)
    cases = (lambda: (_linear(op, image, axes),)), (lambda: (_area(op, image, axes),))
    return op.choose(smaller, cases, [(np.uint8, (None, *canvas, 3))])[0]


def _linear(op, image, axes):
    """Scale as cv2.resize with INTER_LINEAR. `axes`: (size, scaled, before, after, side of the canvas) for y and x."""
    (rows, row_weights), (columns, column_weights) = (_taps(op, axis) for axis in axes)
    total = np.int32(LAST_SHIFT // 2)
    for row, row_weight in zip(rows, row_weights):
        line = op.Gather(image, row, axis=1)
        left, right = (op.Mul(op.cast(op.Gather(line, column, axis=2), np.int32), op.reshape(weight, 1, 1, -1, 1))
                       for column, weight in zip(columns, column_weights))
        line = op.Div(op.Add(left, right), np.int32(FIRST_SHIFT))
        line = op.Div(op.Mul(line, op.reshape(row_weight, 1, -1, 1, 1)), np.int32(SECOND_SHIFT))
        total = op.Add(line, total)
    return op.cast(op.Div(total, np.int32(LAST_SHIFT)), np.uint8)


def _taps(op, axis):
    """Return the two source pixels of each canvas position and their weights, which add up to UNIT, or to 0 outside the image.

    Position i is at (i + 0.5) * before / after - 0.5 between source pixels. Here, numerators and denominators are integers.
    OpenCV stores this number in 32 bits before it takes the fraction.

    Returns:
        ((length,), (length,)) int64 and ((length,), (length,)) int32.
    """
    old, new, before, after, length = axis
    place = np.arange(length)
    double = op.Mul(after, np.array([2]))
    # (place + 0.5) * before / after - 0.5 + 1, which is never negative.
    numerator = op.Add(op.Mul(before, 2 * place + 1), after)
    whole = op.Div(numerator, double)
    rest = op.Sub(numerator, op.Mul(whole, double))
    whole = op.Sub(whole, np.array([1]))
    base = op.cast(whole, np.float32)
    exact = op.Add(base, op.Div(op.cast(rest, np.float32), op.cast(double, np.float32)))
    fraction = op.Sub(exact, base)
    last = op.Sub(old, np.array([1]))
    pixels = [op.Max(op.Min(tap, last), np.array([0])) for tap in (whole, op.Add(whole, np.array([1])))]
    inside = op.cast(op.Less(place, new), np.float32)
    shares = op.Sub(np.float32(1), fraction), fraction
    return pixels, [op.cast(op.Round(op.Mul(op.Mul(share, np.float32(UNIT)), inside)), np.int32) for share in shares]


def _area(op, image, axes):
    """Scale as cv2.resize with INTER_AREA if neither side grows: the mean of the covered pixels, from differences of prefix sums.

    OpenCV sums in another order and in 32 bits, so a mean near .5 may be rounded differently.
    """
    values = op.cast(image, np.int32)
    for number, axis in zip((1, 2), axes):
        values = _means(op, values, number, *axis)
    doubled = [op.Equal(before, op.Mul(after, np.array([2]))) for _, _, before, after, _ in axes]
    # OpenCV rounds means of 2x2 pixels half up, and all other means half to even.
    up = op.Floor(op.Add(values, np.float64(0.5)))
    return op.cast(op.Where(op.And(*doubled), up, op.Round(values)), np.uint8)


def _means(op, values, axis, old, new, before, after, length):
    """Return the mean of `values` between the borders of each canvas position along an axis, float64; 0 outside the image."""
    shape = [-1 if number == axis else 1 for number in range(4)]
    sums = op.CumSum(values, np.int64(axis), exclusive=1)
    border = op.Min(op.Mul(before, np.arange(length + 1)), op.Mul(old, after))
    whole = op.Min(op.Div(border, after), op.Sub(old, np.array([1])))
    rest = op.Sub(border, op.Mul(whole, after))
    part = op.reshape(op.Div(op.cast(rest, np.float64), op.cast(after, np.float64)), *shape)
    upto = op.Add(op.cast(op.Gather(sums, whole, axis=axis), np.float64),
                  op.Mul(op.cast(op.Gather(values, whole, axis=axis), np.float64), part))
    above, below = (op.Gather(upto, np.arange(length) + step, axis=axis) for step in (1, 0))
    inside = op.cast(op.Less(np.arange(length), new), np.float64)
    covered = op.Max(op.Sub(*(op.Gather(border, np.arange(length) + step) for step in (1, 0))), np.array([1]))
    share = op.Mul(inside, op.Div(op.cast(after, np.float64), op.cast(covered, np.float64)))
    return op.Mul(op.Sub(above, below), op.reshape(share, *shape))
