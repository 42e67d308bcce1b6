"""Assigning anchors and proposals to ground-truth boxes, and sampling those that the losses are computed on."""
from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.models.boxes import pairwise_iou
from src.models.operators import TOP_K


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

    Args:
        positive: (B, N) bool.
        negative: (B, N) bool, nowhere true where `positive` is.
        priority: (B, N) float32, a permutation of 0..N-1 in each row (exact in float32 up to 2**23 candidates).
        number: of samples an image.
        max_positive: of positive samples an image.

    Returns:
        index: (B, S) int32 with S = min(number, N).
        is_positive: (B, S) bool.
        is_sampled: (B, S) bool, False in unused slots.
    """
    candidates = positive.shape[1]
    nothing = -ops.ones_like(priority)
    positive_priority = ops.select(positive, priority, nothing)
    # The largest priority that is left out.
    left_out = TOP_K(positive_priority, _smaller(max_positive + 1, candidates))[0][:, -1:]
    if max_positive >= candidates:
        left_out = -ops.ones_like(left_out)
    kept_positive = ops.logical_and(positive, positive_priority > left_out)
    key = ops.select(negative, priority, nothing)
    key = ops.select(kept_positive, priority + candidates, key)
    value, index = TOP_K(key, _smaller(number, candidates))
    return index, value >= candidates, value >= 0


@ms.constexpr
def _smaller(number, other):
    # A graph would compile Python's min as it does operators.
    return min(number, other)
