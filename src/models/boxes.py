"""Box arithmetic inside the graph: areas, overlaps, and the delta coding of Faster R-CNN (arXiv:1506.01497, equation 2)."""
from __future__ import annotations

import math

from mindspore import Tensor, ops

# The exponential of a larger size delta exceeds any image: the largest anchor, 512, times 1000 / 16 is 32,000 pixels.
MAX_SIZE_DELTA = math.log(1000.0 / 16)
# Keeps the logarithm finite for boxes without area, which only padding has.
MIN_SIDE = 1e-6


def area(boxes: Tensor) -> Tensor:
    """Areas (...,) in square pixels of xyxy boxes (..., 4); 0 where x2 < x1 or y2 < y1."""
    width = ops.relu(boxes[..., 2] - boxes[..., 0])
    height = ops.relu(boxes[..., 3] - boxes[..., 1])
    return width * height


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union (B, N, M) of boxes (B or 1, N, 4) with others (B, M, 4), xyxy; 0 where the union is empty."""
    shape = (others.shape[0], boxes.shape[1], others.shape[1])
    intersection = _overlap(boxes, others, 0, shape) * _overlap(boxes, others, 1, shape)
    union = area(boxes).expand_dims(2) + area(others).expand_dims(1) - intersection
    return intersection / ops.maximum(union, MIN_SIDE**2)


def _overlap(boxes, others, axis, shape):
    """Lengths, of shape (B, N, M), of the overlaps along x (axis 0) or y (axis 1)."""
    # The inputs are broadcast first: on the CPU, Minimum and Maximum are five times slower when they broadcast themselves.
    end = ops.minimum(boxes[..., axis + 2].expand_dims(2).broadcast_to(shape),
                      others[..., axis + 2].expand_dims(1).broadcast_to(shape))
    start = ops.maximum(boxes[..., axis].expand_dims(2).broadcast_to(shape),
                        others[..., axis].expand_dims(1).broadcast_to(shape))
    return ops.relu(end - start)


def _centre_and_size(boxes):
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return boxes[..., 0] + 0.5 * width, boxes[..., 1] + 0.5 * height, width, height


def encode(boxes: Tensor, reference: Tensor, weights: tuple) -> Tensor:
    """Deltas (..., 4) that turn reference boxes into boxes (arXiv:1506.01497, equation 2).

    dx = wx (x - xr) / wr, dy likewise, dw = ww log(w / wr), dh likewise; x, y are centres.

    Args:
        boxes: (..., 4) float32 xyxy pixels.
        reference: (..., 4) float32 xyxy pixels, anchors or proposals.
        weights: the four factors (wx, wy, ww, wh).
    """
    x, y, width, height = _centre_and_size(boxes)
    xr, yr, wr, hr = _centre_and_size(reference)
    width, height = ops.maximum(width, MIN_SIDE), ops.maximum(height, MIN_SIDE)
    wr, hr = ops.maximum(wr, MIN_SIDE), ops.maximum(hr, MIN_SIDE)
    dx, dy = weights[0] * (x - xr) / wr, weights[1] * (y - yr) / hr
    dw, dh = weights[2] * ops.log(width / wr), weights[3] * ops.log(height / hr)
    return ops.stack((dx, dy, dw, dh), -1)


def decode(deltas: Tensor, reference: Tensor, weights: tuple) -> Tensor:
    """Boxes (..., 4) xyxy pixels of deltas (..., 4) from reference boxes (..., 4): the inverse of `encode`.

    Size deltas are clamped to log(1000 / 16), so that no box overflows.
    """
    xr, yr, wr, hr = _centre_and_size(reference)
    x, y = deltas[..., 0] / weights[0] * wr + xr, deltas[..., 1] / weights[1] * hr + yr
    width = _exp(ops.clamp(deltas[..., 2] / weights[2], max=MAX_SIZE_DELTA)) * wr
    height = _exp(ops.clamp(deltas[..., 3] / weights[3], max=MAX_SIZE_DELTA)) * hr
    return ops.stack((x - 0.5 * width, y - 0.5 * height, x + 0.5 * width, y + 0.5 * height), -1)


def _exp(x):
    # On the CPU ops.exp has a relative error of 4e-6, a hundredth of a pixel in 2,000; ops.expm1 is exact to the last bit.
    return ops.expm1(x) + 1


def clip(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes (B, N, 4) xyxy clipped to their image, of which size (B, 2) holds height and width in pixels."""
    height, width = size[:, :1], size[:, 1:]
    zero = ops.zeros_like(boxes[..., 0])
    x1, y1 = ops.minimum(ops.maximum(boxes[..., 0], zero), width), ops.minimum(ops.maximum(boxes[..., 1], zero), height)
    x2, y2 = ops.minimum(ops.maximum(boxes[..., 2], zero), width), ops.minimum(ops.maximum(boxes[..., 3], zero), height)
    return ops.stack((x1, y1, x2, y2), -1)


def gather_rows(table: Tensor, index: Tensor) -> Tensor:
    """Rows (B, S, C) of table (B, N, C) at index (B, S) int32."""
    batch, rows = table.shape[:2]
    first_row = ops.arange(0, batch * rows, rows).astype(index.dtype).reshape(batch, 1)
    return ops.gather(table.reshape((batch * rows,) + table.shape[2:]), index + first_row, 0)
