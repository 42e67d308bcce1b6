"""Matching of anchors and proposals to ground-truth boxes, and sampling of anchors and proposals for the losses."""
from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.models.boxes import SUM, TOP_K, pairwise_iou

BASE = 2048  # base of the two digits of a priority; float16 represents all integers up to it


class Matcher(nn.Cell):
    """Finds the ground-truth box that each candidate (an anchor or proposal) overlaps most."""

    def construct(self, candidates: Tensor, boxes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compare all candidates with all boxes of their image.

        Args:
            candidates: (B or 1, N, 4) float32 xyxy pixels.
            boxes: (B, G, 4) float32 xyxy pixels.
            mask: (B, G) bool, False where padded.

        Returns:
            overlap: (B, N) float32, the largest IoU of each candidate; 0 if the image has no box.
            index: (B, N) integer, index of the box with the largest IoU.
            is_best: (B, N) bool, True if, for at least one box, no other candidate has a larger IoU. Ties count, IoU 0
                does not.
        """
        # Padding gets no area, so its IoU is 0. The long axis N is the last one, as vector units need it.
        iou = pairwise_iou(boxes * ops.cast(mask.expand_dims(2), boxes.dtype), candidates)
        overlap, index = ops.max(iou, axis=1)
        best_of_box = ops.maximum(iou.max(axis=2, keepdims=True), 1e-12)
        is_best = (iou >= best_of_box).any(axis=1)
        return overlap, index, is_best


def subsample(positive: Tensor, negative: Tensor, priority: Tensor, number: int,
              max_positive: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a random sample of the candidates, positives first (arXiv:1504.08083, section 2.3).

    It has up to `max_positive` positives, and negatives fill the sample up to `number`. Candidates with the largest priorities
    are selected. If the priorities are a random permutation, the sample is random. The same priorities produce the same sample.

    The result does not depend on the order of equal values in TopK, or on its rounding to float16 on Ascend 910A.

    Args:
        positive: (B, N) bool.
        negative: (B, N) bool, False where `positive` is True.
        priority: (B, N) float32, a permutation of 0..N-1 in each row; N is at most BASE**2.
        number: number of samples per image.
        max_positive: largest number of positive samples per image.

    Returns:
        index: (B, S) int32 with S = min(number, N): positives, then negatives, each by descending priority; 0 in unused slots.
            Above BASE samples, TopK decides the order.
        is_positive: (B, S) bool.
        is_sampled: (B, S) bool, False in unused slots.
    """
    candidates = positive.shape[1]
    positive, _, value, index = _select(positive, negative, priority, number, max_positive)
    number = index.shape[1]
    order = ops.gather_elements(ops.select(positive, priority + candidates, priority), 1, index)
    order = ops.select(value >= 0, order, -ops.ones_like(order))
    if number <= BASE:  # above BASE, ranks are not exact in float16, and S x S comparisons need gigabytes
        larger = SUM(ops.cast(order.expand_dims(1) > order.expand_dims(2), ms.float32), 2)
        slots = TOP_K(-larger, number)[1]
        order, index = ops.gather_elements(order, 1, slots), ops.gather_elements(index, 1, slots)
    return index * ops.cast(order >= 0, ms.int32), order >= candidates, order >= 0


def sample_masks(positive: Tensor, negative: Tensor, priority: Tensor, number: int, max_positive: int) -> tuple[Tensor, Tensor]:
    """Return the sample of `subsample` for the same arguments as masks: is_positive and is_sampled, (B, N) bool."""
    positive, key, value, _ = _select(positive, negative, priority, number, max_positive)
    return positive, key >= ops.maximum(value[:, -1:], 0.0)


def _smaller(one, other):
    return one if one < other else other  # in a graph, Python's min would be compiled to operators


def _select(positive, negative, priority, number, max_positive):
    """Return the sampled positives (B, N) bool, and the results of `_largest` for the sample; values of unused slots are -1."""
    number = _smaller(number, positive.shape[1])
    max_positive = _smaller(number, max_positive)
    nothing = -ops.ones_like(priority)
    high = ops.floor(priority / BASE)
    low = priority - high * BASE
    if max_positive < positive.shape[1]:
        key, value, _ = _largest(ops.select(positive, high, nothing), low, max_positive + 1)
        positive = key > value[:, -1:]  # excludes the last one
    high = ops.select(positive, -BASE * nothing, ops.select(negative, high, nothing))  # all positives rank above all negatives
    return positive, *_largest(high, low, number)


def _largest(high, low, number):
    """Return a key (B, N) that is largest for the `number` largest pairs (high, low), its `number` largest values and indices.

    Let `last` be the high of the last selected pair, at least 0. The key is BASE if high > last, low if high == last, else -1.
    """
    last = ops.maximum(TOP_K(high, number)[0][:, -1:], 0.0)
    key = ops.select(high > last, BASE * ops.ones_like(low), ops.select(high == last, low, -ops.ones_like(low)))
    return key, *TOP_K(key, number)
