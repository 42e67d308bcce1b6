"""Region proposal network (arXiv:1506.01497, section 3.1): objectness and box deltas of every anchor, and their losses."""
import mindspore as ms
from mindspore import nn, ops
from mindspore.common.initializer import Normal

from src.models.boxes import encode, gather_rows
from src.models.losses import binary_cross_entropy_sum, smooth_l1_sum
from src.models.matching import match, sample

# The RPN's deltas are learnt as they are; the box head scales its own.
UNIT_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


class RPNHead(nn.Cell):
    """A 3x3 convolution and two 1x1 ones, shared by all levels.

    Args:
        in_channels: of the pyramid, channels: of the 3x3 convolution, num_anchors: a cell.
    """

    def __init__(self, in_channels, channels, num_anchors):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, pad_mode="same", has_bias=True, weight_init=Normal(0.01),
                              bias_init="zeros")
        self.objectness = nn.Conv2d(channels, num_anchors, 1, has_bias=True, weight_init=Normal(0.01), bias_init="zeros")
        self.deltas = nn.Conv2d(channels, 4 * num_anchors, 1, has_bias=True, weight_init=Normal(0.01), bias_init="zeros")

    def construct(self, levels):
        """levels: tuple of (B, C, H_i, W_i).

        Returns:
            Logits (B, N) and deltas (B, N, 4), float32, N = sum of H_i * W_i * A: level by level, row-major over
            (y, x, anchor).
        """
        # Tuples: a list that grows would send the graph compiler to the Python interpreter.
        logits, deltas = (), ()
        for level in levels:
            hidden = ops.relu(self.conv(level))
            batch = level.shape[0]
            logits += (self.objectness(hidden).astype(ms.float32).transpose(0, 2, 3, 1).reshape(batch, -1),)
            deltas += (self.deltas(hidden).astype(ms.float32).transpose(0, 2, 3, 1).reshape(batch, -1, 4),)
        return ops.concat(logits, 1), ops.concat(deltas, 1)


class RPNLoss(nn.Cell):
    """Losses of a random sample of the anchors, divided by the number sampled in the batch.

    An anchor is positive if it overlaps a box by `positive_overlap` or more, or if none overlaps that box more; negative if
    it overlaps every box by less than `negative_overlap`.

    Args:
        cfg: the section `rpn_head.rpn_label_assignment`; beta: of the smooth L1 loss.
    """

    def __init__(self, cfg, beta):
        super().__init__()
        self.number = cfg.rnp_sample_batch
        self.max_positive = int(cfg.rnp_sample_batch * cfg.fg_fraction)
        self.positive_overlap = cfg.positive_overlap
        self.negative_overlap = cfg.negative_overlap
        self.beta = beta

    def construct(self, anchors, logits, deltas, boxes, mask, priority):
        """Returns the objectness loss and the box loss, scalars.

        Args:
            anchors (N, 4), logits (B, N), deltas (B, N, 4) float32; boxes (B, G, 4) pixels; mask (B, G) bool;
            priority (B, N) float32, see `sample`.
        """
        batch = logits.shape[0]
        overlap, box_index, is_best = match(anchors.expand_dims(0), boxes, mask)
        positive = ops.logical_or(overlap >= self.positive_overlap, is_best)
        negative = ops.logical_and(overlap < self.negative_overlap, ops.logical_not(positive))
        index, is_positive, is_sampled = sample(positive, negative, priority, self.number, self.max_positive)

        target_boxes = gather_rows(boxes, ops.gather_elements(box_index, 1, index))
        # Slots without a positive anchor encode the anchor itself, which is finite and counts for nothing.
        reference = ops.gather(anchors, index, 0)
        target_boxes = ops.select(is_positive.expand_dims(2).broadcast_to((batch, -1, 4)), target_boxes, reference)
        target = ops.stop_gradient(encode(target_boxes, reference, UNIT_WEIGHTS))
        positive_weight, sampled_weight = is_positive.astype(ms.float32), is_sampled.astype(ms.float32)
        count = ops.maximum(sampled_weight.sum(), 1.0)

        sampled_logits = ops.gather_elements(logits, 1, index)
        objectness = binary_cross_entropy_sum(sampled_logits, positive_weight, sampled_weight)
        box = smooth_l1_sum(gather_rows(deltas, index) - target, self.beta, positive_weight)
        return objectness / count, box / count
