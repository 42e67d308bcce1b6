"""The second stage (Fast R-CNN, arXiv:1504.08083): RoI sampling, box head, class scores and per-class boxes."""
from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeNormal, HeUniform, Normal

from src.config import schema
from src.models.backbone import ConvBatchNorm
from src.models.boxes import SUM, clip, decode, encode, gather_rows, one_hot, smooth_l1_sum
from src.models.matcher import Matcher, subsample


class BoxHead(nn.Cell):
    """Computes class logits and box deltas from pooled features (B * R, C, resolution, resolution).

    Args:
        cfg: `bbox_head.head`: numbers of convolutions with BatchNorm and of dense layers.
        resolution: height and width of the pooled features.
        num_classes: K, without background.
        norm: class of the normalisation after each convolution.
    """

    def __init__(self, cfg: schema.BoxHead, resolution: int, num_classes: int, norm: type[nn.Cell] = nn.BatchNorm2d):
        super().__init__()
        channels, hidden = cfg.in_channel, cfg.out_channel
        self.convs = nn.CellList([ConvBatchNorm(
            nn.Conv2d(channels, channels, 3, pad_mode="same", weight_init=HeNormal(mode="fan_out", nonlinearity="relu")),
            norm(channels)) for _ in range(cfg.num_convs)])
        self.fc1 = nn.Dense(channels * resolution**2, hidden, weight_init=HeUniform(negative_slope=1), bias_init="zeros")
        self.fc2 = None
        if cfg.num_fcs == 2:
            self.fc2 = nn.Dense(hidden, hidden, weight_init=HeUniform(negative_slope=1), bias_init="zeros")
        self.classes = nn.Dense(hidden, num_classes + 1, weight_init=Normal(0.01), bias_init="zeros")
        self.deltas = nn.Dense(hidden, 4 * num_classes, weight_init=Normal(0.001), bias_init="zeros")

    def construct(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (M, K + 1), background last, and deltas (M, K, 4), float32, for pooled features (M, C, 7, 7)."""
        for conv in self.convs:
            pooled = ops.relu(conv(pooled))
        hidden = ops.relu(self.fc1(pooled.reshape(pooled.shape[0], -1)))
        if self.fc2 is not None:
            hidden = ops.relu(self.fc2(hidden))
        logits, deltas = self.classes(hidden), self.deltas(hidden)
        return ops.cast(logits, ms.float32), ops.cast(deltas, ms.float32).reshape(pooled.shape[0], -1, 4)


class RoISampler(nn.Cell):
    """Samples RoIs for training the box head. At most a fraction `fg_fraction` is positive, the rest is background.

    Args:
        cfg: `bbox_head.bbox_assigner`.
        add_boxes: whether ground-truth boxes are added to the proposals.
        num_classes: K, the label of the background.
    """

    def __init__(self, cfg: schema.BBoxAssigner, add_boxes: bool, num_classes: int):
        super().__init__()
        self.number = cfg.rois_per_batch
        self.max_positive = int(cfg.rois_per_batch * cfg.fg_fraction)
        self.fg_thresh = cfg.fg_thresh
        self.bg_thresh = cfg.bg_thresh
        self.add_boxes = add_boxes
        self.background = num_classes
        self.match = Matcher()

    def construct(self, proposals: Tensor, valid: Tensor, boxes: Tensor, labels: Tensor, mask: Tensor,
                  priority: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sample S RoIs per image.

        Args:
            proposals: (B, R, 4) float32 xyxy pixels.
            valid: (B, R) bool, True for valid proposals.
            boxes: (B, G, 4) float32 xyxy pixels.
            labels: (B, G) int32, 0..K-1.
            mask: (B, G) bool, False where padded.
            priority: (B, R + G) float32, or (B, R) if boxes are not added, see `subsample`.

        Returns:
            rois: (B, S, 4) float32; unused slots repeat the sampled RoIs, for the statistics of BatchNorm in the box head.
            target_boxes: (B, S, 4) float32, the ground-truth box that each RoI overlaps most.
            label: (B, S) int32, K for background.
            is_sampled: (B, S) bool, False in unused slots.
        """
        if self.add_boxes:
            proposals, valid = ops.concat((proposals, boxes), 1), ops.concat((valid, mask), 1)
        overlap, box_index, _ = self.match(proposals, boxes, mask)
        positive = ops.logical_and(overlap >= self.fg_thresh, valid)
        negative = ops.logical_and(overlap < self.bg_thresh, ops.logical_and(valid, ops.logical_not(positive)))
        index, is_positive, is_sampled = subsample(positive, negative, priority, self.number, self.max_positive)

        count = ops.maximum(SUM(ops.cast(is_sampled, ms.int32), 1), 1).expand_dims(1)
        slot = ops.arange(index.shape[1]).expand_dims(0)
        index = ops.gather_elements(index, 1, slot - slot // count * count)

        box_index = ops.gather_elements(box_index, 1, index)
        label = ops.gather_elements(labels, 1, box_index)
        label = ops.select(is_positive, label, ops.full_like(label, self.background))
        return gather_rows(proposals, index), gather_rows(boxes, box_index), label, is_sampled


class RoILoss(nn.Cell):
    """Classification and box losses of the sampled RoIs, divided by the number of sampled RoIs in the batch.

    `bbox_weights` are the weights of the deltas, see `src.models.boxes.encode`; `beta` is the beta of the smooth L1 loss.
    """

    def __init__(self, num_classes: int, bbox_weights: list[float], beta: float):
        super().__init__()
        self.num_classes = num_classes
        self.bbox_weights = tuple(bbox_weights)
        self.beta = beta

    def construct(self, logits: Tensor, deltas: Tensor, rois: Tensor, target_boxes: Tensor, label: Tensor,
                  is_sampled: Tensor) -> tuple[Tensor, Tensor]:
        """Return the classification loss and the box loss, float32 scalars.

        Args:
            logits, deltas: (B * S, K + 1) and (B * S, K, 4) float32, predictions for the sampled RoIs.
            rois, target_boxes, label, is_sampled: outputs of `RoISampler`.
        """
        label, sampled_weight = label.reshape(-1), ops.cast(is_sampled.reshape(-1), ms.float32)
        is_positive = ops.logical_and(label < self.num_classes, is_sampled.reshape(-1))
        count = ops.maximum(SUM(sampled_weight), 1.0)
        classification = cross_entropy_sum(logits, label, sampled_weight)

        rois, target_boxes = rois.reshape(-1, 4), target_boxes.reshape(-1, 4)
        target_boxes = ops.select(is_positive.expand_dims(1).broadcast_to((-1, 4)), target_boxes, rois)
        target = ops.stop_gradient(encode(target_boxes, rois, self.bbox_weights))
        own_deltas = SUM(deltas * one_hot(label, self.num_classes).expand_dims(2), 1)
        box = smooth_l1_sum(own_deltas - target, self.beta, ops.cast(is_positive, ms.float32))
        return classification / count, box / count


def cross_entropy_sum(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Return the sum over rows of weight * CE(softmax(logits), label). logits (M, C), weight (M,) float32, label (M,) int32."""
    log_probability = ops.log_softmax(logits, -1)
    return -SUM(SUM(log_probability * one_hot(label, logits.shape[1]), 1) * weight)


class RoIPredictor(nn.Cell):
    """Computes class probabilities and decoded boxes of every proposal.

    Args:
        bbox_weights: weights of the deltas, see `src.models.boxes.encode`.
        clipped: whether to clip boxes to the image.
    """

    def __init__(self, bbox_weights: list[float], clipped: bool = True):
        super().__init__()
        self.bbox_weights = tuple(bbox_weights)
        self.clipped = clipped

    def construct(self, logits: Tensor, deltas: Tensor, proposals: Tensor, valid: Tensor,
                  valid_size: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (B, R, K, 4) in canvas pixels and scores (B, R, K). Invalid proposals have score 0.

        Args:
            logits, deltas: (B * R, K + 1) and (B * R, K, 4) float32.
            proposals: (B, R, 4) float32 xyxy pixels.
            valid: (B, R) bool, True for valid proposals.
            valid_size: (B, 2) float32, height and width of each image on its canvas.
        """
        batch, number = proposals.shape[:2]
        scores = ops.softmax(logits, -1).reshape(batch, number, -1)[:, :, :-1]
        boxes = decode(deltas.reshape(batch, number, -1, 4), proposals.expand_dims(2), self.bbox_weights)
        if self.clipped:
            boxes = clip(boxes.reshape(batch, -1, 4), valid_size).reshape(boxes.shape)
        return boxes, scores * ops.cast(valid, scores.dtype).expand_dims(2)
