"""From the RPN's outputs to proposals (arXiv:1506.01497, section 3.3; per level as in arXiv:1612.03144)."""
from mindspore import nn, ops

from src.models.boxes import clip, decode, gather_rows
from src.models.rpn import UNIT_WEIGHTS

# Below every logit: the score of a box that is out.
REJECTED = -1e10


class GroupedNMS(nn.Cell):
    """Greedy non-maximum suppression within groups of boxes.

    Args:
        threshold: a box goes when its IoU with a better one that stays is above it.
    """

    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold
        self.nms = ops.NMSWithMask(threshold)

    def construct(self, boxes, ends):
        """Which boxes (B, n, 4), by falling score in each group, survive: (B, n) bool; ends: tuple, of the groups."""
        kept = ()
        for image in range(boxes.shape[0]):
            first = 0
            for end in ends:
                # MpiGroup for scores: the operator sorts again, and would leave equal scores in any order.
                ranks = ops.arange(end - first, 0, -1).astype(boxes.dtype).expand_dims(1)
                _, _, keep = self.nms(ops.concat((boxes[image, first:end], ranks), 1))
                # The operator has no gradient, and none is wanted.
                kept += (ops.stop_gradient(keep),)
                first = end
        return ops.concat(kept).reshape(boxes.shape[:2])


class ProposalGenerator(nn.Cell):
    """The best boxes of each level, clipped to the image, without near-duplicates, then the best of all levels.

    Args:
        cfg: the section `rpn_head.train_proposal` or `rpn_head.test_proposal`.
        level_sizes: number of anchors of each level.

    Attributes:
        number: R, of proposals an image.
    """

    def __init__(self, cfg, level_sizes):
        super().__init__()
        self.level_sizes = tuple(level_sizes)
        self.min_size = cfg.min_size
        self.pre_nms_top_n = cfg.pre_nms_top_n
        candidates = sum(min(cfg.pre_nms_top_n, size) for size in level_sizes)
        self.number = min(cfg.post_nms_top_n, candidates)
        self.suppress = GroupedNMS(cfg.nms_thresh)

    def _best_of_levels(self, logits):
        """The best `pre_nms_top_n` anchors of each level: scores (B, n), falling in each level, index (B, n), level ends."""
        scores, index, ends, first, end = (), (), (), 0, 0
        for size in self.level_sizes:
            kept = min(self.pre_nms_top_n, size)
            level_scores, level_index = ops.topk(logits[:, first : first + size], kept)
            scores, index, end = scores + (level_scores,), index + (level_index + first,), end + kept
            ends, first = ends + (end,), first + size
        return ops.concat(scores, 1), ops.concat(index, 1), ends

    def construct(self, anchors, logits, deltas, valid_size):
        """Returns proposals (B, R, 4) by falling score and which of them are valid (B, R) bool.

        Args:
            anchors (N, 4), logits (B, N), deltas (B, N, 4) float32 of all levels, finest first; valid_size (B, 2).
        """
        scores, index, ends = self._best_of_levels(logits)
        boxes = clip(decode(gather_rows(deltas, index), ops.gather(anchors, index, 0), UNIT_WEIGHTS), valid_size)
        sides = boxes[..., 2:] - boxes[..., :2]
        large = (sides >= self.min_size).all(-1)
        # A box that is too small must not suppress others: without area it overlaps none.
        boxes = boxes * large.astype(boxes.dtype).expand_dims(2)
        kept = ops.logical_and(self.suppress(boxes, ends), large)
        scores, best = ops.topk(ops.select(kept, scores, REJECTED * ops.ones_like(scores)), self.number)
        valid = scores > REJECTED
        return gather_rows(boxes, best) * valid.astype(boxes.dtype).expand_dims(2), valid
