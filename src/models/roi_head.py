"""The second stage (Fast R-CNN, arXiv:1504.08083): RoI sampling, two dense layers, class scores and class-specific boxes."""
import mindspore as ms
from mindspore import nn, ops
from mindspore.common.initializer import HeUniform, Normal

from src.models.boxes import clip, decode, encode, gather_rows
from src.models.losses import cross_entropy_sum, smooth_l1_sum
from src.models.matcher import Matcher, subsample


class BoxHead(nn.Cell):
    """Pooled features -> class logits and box deltas.

    Args:
        in_channels, resolution: of the pooled features; hidden: width of the two dense layers; num_classes: K.
    """

    def __init__(self, in_channels, resolution, hidden, num_classes):
        super().__init__()
        self.fc1 = nn.Dense(in_channels * resolution**2, hidden, weight_init=HeUniform(negative_slope=1), bias_init="zeros")
        self.fc2 = nn.Dense(hidden, hidden, weight_init=HeUniform(negative_slope=1), bias_init="zeros")
        self.classes = nn.Dense(hidden, num_classes + 1, weight_init=Normal(0.01), bias_init="zeros")
        self.deltas = nn.Dense(hidden, 4 * num_classes, weight_init=Normal(0.001), bias_init="zeros")

    def construct(self, pooled):
        """pooled (M, C, 7, 7); returns logits (M, K + 1), the background last, and deltas (M, K, 4), float32."""
        hidden = ops.relu(self.fc1(pooled.reshape(pooled.shape[0], -1)))
        hidden = ops.relu(self.fc2(hidden))
        logits, deltas = self.classes(hidden), self.deltas(hidden)
        return logits.astype(ms.float32), deltas.astype(ms.float32).reshape(pooled.shape[0], -1, 4)


class RoISampler(nn.Cell):
    """Chooses the RoIs that train the box head: at most `fg_fraction` positives, the rest background.

    Args:
        cfg: the section `bbox_head.bbox_assigner`; add_boxes: whether ground-truth boxes count among the proposals;
        num_classes: K, the label of the background.
    """

    def __init__(self, cfg, add_boxes, num_classes):
        super().__init__()
        self.number = cfg.rois_per_batch
        self.max_positive = int(cfg.rois_per_batch * cfg.fg_fraction)
        self.fg_thresh = cfg.fg_thresh
        self.bg_thresh = cfg.bg_thresh
        self.add_boxes = add_boxes
        self.background = num_classes
        self.match = Matcher()

    def construct(self, proposals, valid, boxes, labels, mask, priority):
        """Returns rois (B, S, 4), their target boxes (B, S, 4), labels (B, S) int32, sampled (B, S) bool.

        Args:
            proposals (B, R, 4), valid (B, R) bool; boxes (B, G, 4), labels (B, G) int32, mask (B, G) bool;
            priority (B, R + G) float32, or (B, R) without added boxes, see `subsample`.
        """
        if self.add_boxes:
            proposals, valid = ops.concat((proposals, boxes), 1), ops.concat((valid, mask), 1)
        overlap, box_index, _ = self.match(proposals, boxes, mask)
        positive = ops.logical_and(overlap >= self.fg_thresh, valid)
        negative = ops.logical_and(overlap < self.bg_thresh, ops.logical_and(valid, ops.logical_not(positive)))
        index, is_positive, is_sampled = subsample(positive, negative, priority, self.number, self.max_positive)

        box_index = ops.gather_elements(box_index, 1, index)
        label = ops.gather_elements(labels, 1, box_index)
        label = ops.select(is_positive, label, ops.full_like(label, self.background))
        return gather_rows(proposals, index), gather_rows(boxes, box_index), label, is_sampled


class RoILoss(nn.Cell):
    """Classification and box losses of the sampled RoIs, divided by the number sampled in the batch.

    Args:
        num_classes: K; bbox_weights: factors of the deltas; beta: of the smooth L1 loss.
    """

    def __init__(self, num_classes, bbox_weights, beta):
        super().__init__()
        self.num_classes = num_classes
        self.bbox_weights = tuple(bbox_weights)
        self.beta = beta

    def construct(self, logits, deltas, rois, target_boxes, label, is_sampled):
        """logits (B * S, K + 1), deltas (B * S, K, 4), the rest from `RoISampler`; returns two scalars."""
        label, sampled_weight = label.reshape(-1), is_sampled.reshape(-1).astype(ms.float32)
        is_positive = ops.logical_and(label < self.num_classes, is_sampled.reshape(-1))
        count = ops.maximum(sampled_weight.sum(), 1.0)
        classification = cross_entropy_sum(logits, label, sampled_weight)

        rois, target_boxes = rois.reshape(-1, 4), target_boxes.reshape(-1, 4)
        target_boxes = ops.select(is_positive.expand_dims(1).broadcast_to((-1, 4)), target_boxes, rois)
        target = ops.stop_gradient(encode(target_boxes, rois, self.bbox_weights))
        own_class = ops.minimum(label, self.num_classes - 1)
        # A background row reads the last class's deltas, with weight 0.
        own_deltas = gather_rows(deltas, own_class.expand_dims(1)).squeeze(1)
        box = smooth_l1_sum(own_deltas - target, self.beta, is_positive.astype(ms.float32))
        return classification / count, box / count


class RoIPredictor(nn.Cell):
    """Class probabilities and boxes of every proposal, decoded and clipped to the image.

    Args:
        bbox_weights: factors of the deltas.
    """

    def __init__(self, bbox_weights):
        super().__init__()
        self.bbox_weights = tuple(bbox_weights)

    def construct(self, logits, deltas, proposals, valid, valid_size):
        """Returns boxes (B, R, K, 4) canvas pixels and scores (B, R, K), 0 where a proposal is not valid.

        Args:
            logits (B * R, K + 1), deltas (B * R, K, 4), proposals (B, R, 4), valid (B, R) bool, valid_size (B, 2).
        """
        batch, number = proposals.shape[:2]
        scores = ops.softmax(logits, -1).reshape(batch, number, -1)[:, :, :-1]
        boxes = decode(deltas.reshape(batch, number, -1, 4), proposals.expand_dims(2), self.bbox_weights)
        boxes = clip(boxes.reshape(batch, -1, 4), valid_size).reshape(boxes.shape)
        return boxes, scores * valid.astype(scores.dtype).expand_dims(2)
