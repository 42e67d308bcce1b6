"""Assigning anchors and proposals to ground-truth boxes, and sampling those that the losses are computed on."""
from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.models.boxes import pairwise_iou
from src.models.operators import SUM, TOP_K

BASE = 2048  # of the digits of priorities; float16 has all integers up to it


class Matcher(nn.Cell):
    """The ground-truth box that each candidate, an anchor or proposal, overlaps most.

    A cell without parameters so that src/cpu_kernels can replace it.
    """

    def construct(self, candidates, boxes, mask):
        """Compares all candidates with all boxes of their image.

        Args:
            candidates: (B or 1, N, 4) float32 xyxy pixels.
            boxes: (B, G, 4) float32 xyxy pixels.
            mask: (B, G) bool, False where padded.

        Returns:
            overlap: (B, N) float32, the largest IoU; 0 without any box.
            index: (B, N) integer, of the box with that IoU.
            is_best: (B, N) bool, whether some box is overlapped by no candidate more than by this one. Ties count, IoU 0
                does not.
        """
        iou = pairwise_iou(candidates, boxes) * ops.cast(mask.expand_dims(1), boxes.dtype)
        overlap, index = ops.max(iou, axis=2)
        best_of_box = ops.maximum(iou.max(axis=1, keepdims=True), 1e-12)
        is_best = ops.logical_and(iou >= best_of_box, mask.expand_dims(1)).any(axis=2)
        return overlap, index, is_best


def subsample(positive: Tensor, negative: Tensor, priority: Tensor, number: int,
              max_positive: int) -> tuple[Tensor, Tensor, Tensor]:
    """A random subset of the candidates, positives first (arXiv:1504.08083, section 2.3).

    Up to `max_positive` positives, then negatives until there are `number`. Those of largest priority are taken: a random
    permutation gives a random sample, and equal priorities give equal samples.

    The result does not depend on how TopK orders equal values, nor on its rounding on Ascend 910A, which is that of float16.

    Args:
        positive: (B, N) bool.
        negative: (B, N) bool, nowhere true where `positive` is.
        priority: (B, N) float32, a permutation of 0..N-1 in each row; N is at most BASE**2.
        number: of samples an image.
        max_positive: of positive samples an image.

    Returns:
        index: (B, S) int32 with S = min(number, N): positives, then negatives, both by falling priority; 0 in unused slots. Above
            BASE samples, the order is TopK's.
        is_positive: (B, S) bool.
        is_sampled: (B, S) bool, False in unused slots.
    """
    candidates = positive.shape[1]
    number, max_positive = _smaller(number, candidates), _smaller(number, max_positive)
    nothing = -ops.ones_like(priority)
    high = ops.floor(priority / BASE)
    low = priority - high * BASE
    if max_positive < candidates:
        key, value, _ = _largest(ops.select(positive, high, nothing), low, max_positive + 1)
        positive = key > value[:, -1:]  # the last one is left out
    high = ops.select(positive, -BASE * nothing, ops.select(negative, high, nothing))  # positives are above all negatives
    _, value, index = _largest(high, low, number)

    order = ops.gather_elements(ops.select(positive, priority + candidates, priority), 1, index)
    order = ops.select(value >= 0, order, nothing[:, :number])
    if number <= BASE:  # beyond it, ranks are not exact in float16, and S x S comparisons take gigabytes
        larger = SUM(ops.cast(order.expand_dims(1) > order.expand_dims(2), ms.float32), 2)
        slots = TOP_K(-larger, number)[1]
        order, index = ops.gather_elements(order, 1, slots), ops.gather_elements(index, 1, slots)
    return index * ops.cast(order >= 0, ms.int32), order >= candidates, order >= 0


def _largest(high, low, number):
    """A key (B, N) whose `number` largest values belong to the largest pairs (high, low), these values, and their indices.

    A pair gets BASE if its high is above the high of the last pair, low if both are equal and not -1, and -1 otherwise.
    """
    last = ops.maximum(TOP_K(high, number)[0][:, -1:], 0.0)
    key = ops.select(high > last, BASE * ops.ones_like(low), ops.select(high == last, low, -ops.ones_like(low)))
    return key, *TOP_K(key, number)


@ms.constexpr
def _smaller(number, other):
    # A graph would compile Python's min as it does operators.
    return min(number, other)
