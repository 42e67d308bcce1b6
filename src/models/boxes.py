"""Box operations for the graph: areas, IoU, the delta encoding of Faster R-CNN (arXiv:1506.01497, equation 2), and its loss."""
from __future__ import annotations

import math

import mindspore as ms
from mindspore import Tensor, ops

# Each operator is created once. The equivalent functions are Python code with type checks and defaults. Every call of them is
# compiled, which takes a large part of the time to the first step.
SUM = ops.ReduceSum()
TOP_K = ops.TopK()  # values and indices along the last axis, in descending order
HALVES = ops.Split(-1, 2)  # the two halves of the last axis

# Larger size deltas give boxes larger than any image: the largest anchor, 512 pixels, times 1000 / 16 is 32,000 pixels.
MAX_SIZE_DELTA = math.log(1000.0 / 16)
# Keeps the logarithm finite for boxes without area. Only padding has such boxes.
MIN_SIDE = 1e-6


def area(boxes: Tensor) -> Tensor:
    """Return the areas (...,) in square pixels of xyxy boxes (..., 4); 0 where x2 < x1 or y2 < y1."""
    start, end = HALVES(boxes)
    width, height = HALVES(ops.relu(end - start))
    return (width * height).squeeze(-1)


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the IoU (B, N, M) of boxes (B, N, 4) with others (B or 1, M, 4), xyxy; 0 where the union is empty."""
    intersection = _overlap(boxes, others, 0) * _overlap(boxes, others, 1)
    union = area(boxes).expand_dims(2) + area(others).expand_dims(1) - intersection
    return intersection / ops.maximum(union, MIN_SIDE**2)


def _overlap(boxes, others, axis):
    """Return the lengths (B, N, M) of the overlaps along x (axis 0) or y (axis 1)."""
    end = ops.minimum(boxes[..., axis + 2].expand_dims(2), others[..., axis + 2].expand_dims(1))
    start = ops.maximum(boxes[..., axis].expand_dims(2), others[..., axis].expand_dims(1))
    return ops.relu(end - start)


def _centre_and_size(boxes):
    """Return centres (..., 2) as (x, y) and sizes (..., 2) as (width, height)."""
    start, end = HALVES(boxes)
    size = end - start
    return start + 0.5 * size, size


def encode(boxes: Tensor, reference: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Return the deltas (..., 4) that transform reference boxes into boxes (arXiv:1506.01497, equation 2).

    dx = wx (x - xr) / wr and dw = ww log(w / wr), where x is the centre; dy and dh likewise.

    Args:
        boxes: (..., 4) float32 xyxy pixels.
        reference: (..., 4) float32 xyxy pixels: anchors or proposals.
        weights: the four factors (wx, wy, ww, wh).
    """
    (centre, size), (reference_centre, reference_size) = _centre_and_size(boxes), _centre_and_size(reference)
    size, reference_size = ops.maximum(size, MIN_SIDE), ops.maximum(reference_size, MIN_SIDE)
    shift = Tensor(weights[:2], ms.float32) * (centre - reference_centre) / reference_size
    return ops.concat((shift, Tensor(weights[2:], ms.float32) * ops.log(size / reference_size)), -1)


def decode(deltas: Tensor, reference: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Return the boxes (..., 4) xyxy pixels for deltas (..., 4) and reference boxes (..., 4): the inverse of `encode`.

    Size deltas are clamped to at most log(1000 / 16), so that no box overflows.
    """
    centre, size = _centre_and_size(reference)
    shift, growth = HALVES(deltas)
    centre = shift / Tensor(weights[:2], ms.float32) * size + centre
    # On the CPU, ops.exp has a relative error of 4e-6 (0.01 pixels in 2,000). ops.expm1 is exact to the last bit.
    size = (ops.expm1(ops.clamp(growth / Tensor(weights[2:], ms.float32), max=MAX_SIZE_DELTA)) + 1) * size
    return ops.concat((centre - 0.5 * size, centre + 0.5 * size), -1)


def smooth_l1_sum(difference: Tensor, beta: float, weight: Tensor) -> Tensor:
    """Return the sum of weight * smooth L1 (arXiv:1504.08083, equation 3): 0.5 d^2 / beta if |d| < beta, else |d| - beta / 2.

    Args:
        difference: (..., 4) float32, predicted minus target deltas.
        beta: |d| at which the loss changes from quadratic to linear, above 0.
        weight: (...,) float32.
    """
    size = ops.abs(difference)
    # The quadratic loss of min(|d|, beta) plus the linear rest: the same function without a branch.
    near = ops.minimum(size, beta)
    loss = 0.5 * near * near / beta + (size - near)
    return SUM(SUM(loss, -1) * weight)


def clip(boxes: Tensor, size: Tensor) -> Tensor:
    """Return boxes (B, N, 4) xyxy clipped to their images; size (B, 2) is the height and width of each image in pixels."""
    height, width = HALVES(size)
    limit = ops.concat((width, height, width, height), 1).expand_dims(1)
    return ops.minimum(ops.maximum(boxes, ops.zeros_like(boxes)), limit)


def one_hot(index: Tensor, number: int) -> Tensor:
    """Return (..., number) float32, 1 at index (...,) int32 and 0 elsewhere; all 0 if the index is out of range.

    A sum of products selects elements without GatherD, whose gradient runs on Ascend's AI CPU.
    """
    return ops.cast(index.expand_dims(-1) == ops.arange(number), ms.float32)


def gather_rows(table: Tensor, index: Tensor) -> Tensor:
    """Return the rows (B, S, C) of table (B, N, C) at index (B, S) int32."""
    return ops.gather_elements(table, 1, index.expand_dims(2).broadcast_to((*index.shape, table.shape[2])))
