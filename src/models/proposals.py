"""From the RPN's outputs to proposals (arXiv:1506.01497, section 3.3; per level as in arXiv:1612.03144)."""
from __future__ import annotations

from mindspore import nn, ops

from src.models.boxes import clip, decode, gather_rows
from src.models.rpn import UNIT_WEIGHTS

# Score of a rejected box, below every logit.
REJECTED = -1e10


class BatchedNMS(nn.Cell):
    """Greedy non-maximum suppression within groups of boxes; a cell of its own so that src/cpu_kernels can replace it.

    Args:
        threshold: a box is suppressed when its IoU with a kept box of higher score is above it.
    """

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = threshold
        self.nms = ops.NMSWithMask(threshold)

    def construct(self, boxes, ends):
        """Which boxes are kept, (B, n) bool.

        Args:
            boxes: (B, n, 4) float32 xyxy, in each group by falling score.
            ends: tuple of int, the index after the last box of each group.
        """
        kept = ()
        for image in range(boxes.shape[0]):
            first = 0
            for end in ends:
                # Ranks instead of scores: the operator sorts again, and may change the order of equal scores.
                ranks = ops.arange(end - first, 0, -1).astype(boxes.dtype).expand_dims(1)
                _, _, keep = self.nms(ops.concat((boxes[image, first:end], ranks), 1))
                # The operator has no gradient, and none is needed.
                kept += (ops.stop_gradient(keep),)
                first = end
        return ops.concat(kept).reshape(boxes.shape[:2])


class ProposalGenerator(nn.Cell):
    """The best boxes of each level after clipping and non-maximum suppression, then the best of all levels.

    Args:
        cfg: the section `rpn_head.train_proposal` or `rpn_head.test_proposal` of the configuration.
        level_sizes: number of anchors of each level.

    Attributes:
        number: R, of proposals an image.
    """

    def __init__(self, cfg, level_sizes: tuple):
        super().__init__()
        self.level_sizes = tuple(level_sizes)
        self.min_size = cfg.min_size
        self.pre_nms_top_n = cfg.pre_nms_top_n
        candidates = sum(min(cfg.pre_nms_top_n, size) for size in level_sizes)
        self.number = min(cfg.post_nms_top_n, candidates)
        self.suppress = BatchedNMS(cfg.nms_thresh)

    def _best_of_levels(self, logits):
        """Scores (B, n) and index (B, n) of the best anchors of each level by falling score, and the ends of the levels in n."""
        scores, index, ends, first, end = (), (), (), 0, 0
        for size in self.level_sizes:
            kept = min(self.pre_nms_top_n, size)
            level_scores, level_index = ops.topk(logits[:, first : first + size], kept)
            scores, index, end = scores + (level_scores,), index + (level_index + first,), end + kept
            ends, first = ends + (end,), first + size
        return ops.concat(scores, 1), ops.concat(index, 1), ends

    def construct(self, anchors, logits, deltas, valid_size):
        """Returns proposals (B, R, 4) float32 xyxy pixels by falling score, and which of them are valid, (B, R) bool.

        Args:
            anchors: (N, 4) float32 of all levels, finest first.
            logits: (B, N) float32.
            deltas: (B, N, 4) float32.
            valid_size: (B, 2) float32, height and width of each image on its canvas.
        """
        scores, index, ends = self._best_of_levels(logits)
        boxes = clip(decode(gather_rows(deltas, index), ops.gather(anchors, index, 0), UNIT_WEIGHTS), valid_size)
        sides = boxes[..., 2:] - boxes[..., :2]
        large = (sides >= self.min_size).all(-1)
        # A box that is too small must not suppress others: multiplied by 0 it overlaps none.
        boxes = boxes * large.astype(boxes.dtype).expand_dims(2)
        kept = ops.logical_and(self.suppress(boxes, ends), large)
        scores, best = ops.topk(ops.select(kept, scores, REJECTED * ops.ones_like(scores)), self.number)
        valid = scores > REJECTED
        return gather_rows(boxes, best) * valid.astype(boxes.dtype).expand_dims(2), valid
