"""Which ground-truth box each anchor or proposal stands for, and which of them carry a loss."""
from mindspore import nn, ops

from src.models.boxes import pairwise_iou


class Matcher(nn.Cell):
    """The ground-truth box that each candidate overlaps most."""

    def construct(self, candidates, boxes, mask):
        """Compare all candidates with all boxes of their image.

        Args:
            candidates: (B or 1, N, 4) float32 pixels, boxes: (B, G, 4) float32 pixels, mask: (B, G) bool, False where padded.

        Returns:
            overlap (B, N) float32, the largest IoU (0 without any box); index (B, N), whole numbers, of that box;
            is_best (B, N) bool: no candidate overlaps one of the boxes more than this one does (ties count, IoU 0 does not).
        """
        iou = pairwise_iou(candidates, boxes) * mask.expand_dims(1).astype(boxes.dtype)
        overlap, index = ops.max(iou, axis=2)
        best_of_box = ops.maximum(iou.max(axis=1, keepdims=True), 1e-12)
        is_best = ops.logical_and(iou >= best_of_box, mask.expand_dims(1)).any(axis=2)
        return overlap, index, is_best


def subsample(positive, negative, priority, number, max_positive):
    """A random subset of the candidates, positives first (arXiv:1504.08083, section 2.3).

    Up to `max_positive` positives, then negatives until there are `number`. The candidates of largest priority are taken:
    a random permutation makes a random sample, and the same priorities always make the same one.

    Args:
        positive, negative: (B, N) bool, disjoint.
        priority: (B, N) float32, a permutation of 0..N-1 in each row (exact in float32 up to 2**23 candidates).
        number, max_positive: counts of one image.

    Returns:
        index (B, S) int32 with S = min(number, N); is_positive (B, S) bool; is_sampled (B, S) bool, False in unused slots.
    """
    candidates = positive.shape[1]
    nothing = -ops.ones_like(priority)
    positive_priority = ops.select(positive, priority, nothing)
    # One more than wanted: the first that is left out.
    left_out = ops.topk(positive_priority, min(max_positive, candidates - 1) + 1)[0][:, -1:]
    if max_positive >= candidates:
        left_out = -ops.ones_like(left_out)
    kept_positive = ops.logical_and(positive, positive_priority > left_out)
    key = ops.select(negative, priority, nothing)
    key = ops.select(kept_positive, priority + candidates, key)
    value, index = ops.topk(key, min(number, candidates))
    return index, value >= candidates, value >= 0
