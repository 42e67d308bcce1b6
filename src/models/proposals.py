"""Selection of proposals from the outputs of the RPN (arXiv:1506.01497, section 3.3; per level as in arXiv:1612.03144)."""
from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.config import schema
from src.models.boxes import HALVES, TOP_K, clip, decode, gather_rows
from src.models.rpn import UNIT_WEIGHTS

# Ascend 910A computes TopK and NMSWithMask in float16 and clamps numbers to its range. There, boxes are sorted by scores rounded
# to float16, and NMS uses rounded coordinates. Indices, ranks and REJECTED are exact.
REJECTED = -65504.0  # score of a rejected box, below every logit: the lowest float16 number


class BatchedNMS(nn.Cell):
    """Greedy NMS within groups of boxes: a box is removed if its IoU with a kept box of higher score is above `threshold`."""

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = threshold
        self.nms = ops.NMSWithMask(threshold)

    def construct(self, boxes: Tensor, ends: tuple[int, ...]) -> Tensor:
        """Return (B, n) bool, True for kept boxes.

        Args:
            boxes: (B, n, 4) float32 xyxy, sorted by descending score within each group.
            ends: tuple of int, the index after the last box of each group.
        """
        kept = ()
        for image in range(boxes.shape[0]):
            first = 0
            for end in ends:
                # Ranks replace scores because the operator sorts again and may change the order of equal scores.
                ranks = ops.cast(ops.arange(end - first, 0, -1), boxes.dtype).expand_dims(1)
                ranks = ranks + ops.relu(ranks - 2048)  # above 2048, float16 has only even integers
                _, _, keep = self.nms(ops.concat((boxes[image, first:end], ranks), 1))
                # The operator has no gradient, and none is needed.
                kept += (ops.stop_gradient(keep),)
                first = end
        return ops.concat(kept).reshape(boxes.shape[:2])


class ProposalGenerator(nn.Cell):
    """Selects the best boxes of each level after clipping and NMS, then the best boxes of all levels.

    With `joint_nms_thresh`, a second NMS runs over these boxes of all levels.

    Args:
        cfg: `rpn_head.train_proposal` or `rpn_head.test_proposal`.
        level_sizes: number of anchors of each level.
        canvas: (height, width) in pixels.

    Attributes:
        levels: (first anchor, end, number of best anchors to keep) for each level.
        number: R, number of proposals per image.
    """

    def __init__(self, cfg: schema.Proposal, level_sizes: list[int], canvas: tuple[int, int]):
        super().__init__()
        self.min_size, self.drop_small_first = cfg.min_size, cfg.drop_small_first
        # Computed here because in the graph each operation on numbers would be a node until constant folding.
        kept, firsts = [min(cfg.pre_nms_top_n, size) for size in level_sizes], np.cumsum([0, *level_sizes]).tolist()
        self.levels = tuple(zip(firsts, firsts[1:], kept))
        self.first_of_level = Tensor(np.repeat(firsts[:-1], kept), ms.int32)
        self.ends = tuple(np.cumsum(kept).tolist())
        self.number = min(cfg.post_nms_top_n, self.ends[-1])
        self.suppress = BatchedNMS(cfg.nms_thresh)
        self.suppress_jointly = None if cfg.joint_nms_thresh is None else BatchedNMS(cfg.joint_nms_thresh)
        # (1, 2) float32: height and width to which all boxes are clipped, or None to clip to the size of each image.
        self.limit = Tensor([[side - 1 for side in canvas]], ms.float32) if cfg.clip_to == "canvas" else None

    def _best_of_levels(self, logits):
        """Return scores (B, n) and indices (B, n) of the best anchors of each level, by descending score within the level."""
        scores, index = (), ()
        for first, end, kept in self.levels:
            level_scores, level_index = TOP_K(logits[:, first:end], kept)
            scores, index = scores + (level_scores,), index + (level_index,)
        return ops.concat(scores, 1), ops.concat(index, 1) + self.first_of_level

    def _boxes(self, deltas, anchors, limit):
        """Return boxes (B, n, 4), decoded from their anchors and clipped, and (B, n) bool, True for large enough boxes."""
        boxes = clip(decode(deltas, anchors, UNIT_WEIGHTS), limit)
        start, end = HALVES(boxes)
        return boxes, (end - start >= self.min_size).all(-1)

    def construct(self, anchors: Tensor, logits: Tensor, deltas: Tensor, valid_size: Tensor) -> tuple[Tensor, Tensor]:
        """Return proposals (B, R, 4) float32 xyxy pixels by descending score, and (B, R) bool, True for valid proposals.

        Invalid proposals have arbitrary coordinates, and may be anywhere in the order.

        Args:
            anchors: (N, 4) float32 of all levels, finest first.
            logits: (B, N) float32.
            deltas: (B, N, 4) float32.
            valid_size: (B, 2) float32, height and width of each image on its canvas.
        """
        limit = valid_size if self.limit is None else self.limit
        if self.drop_small_first:
            _, large = self._boxes(deltas, anchors, limit)
            logits = ops.select(large, logits, REJECTED * ops.ones_like(logits))
        scores, index = self._best_of_levels(logits)
        boxes, large = self._boxes(gather_rows(deltas, index), ops.gather(anchors, index, 0), limit)
        # Small boxes must not suppress others: multiplied by 0, they overlap no box.
        boxes = boxes * ops.cast(large, boxes.dtype).expand_dims(2)
        kept = ops.logical_and(self.suppress(boxes, self.ends), large)
        scores, best = TOP_K(ops.select(kept, scores, REJECTED * ops.ones_like(scores)), self.number)
        valid = scores > REJECTED
        boxes = gather_rows(boxes, best) * ops.cast(valid, boxes.dtype).expand_dims(2)
        if self.suppress_jointly is not None:
            valid = ops.logical_and(self.suppress_jointly(boxes, (self.number,)), valid)
        return boxes, valid
