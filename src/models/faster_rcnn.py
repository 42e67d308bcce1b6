"""Faster R-CNN with a feature pyramid (arXiv:1506.01497, 1612.03144): losses for training, and boxes for inference."""
from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.config import Config
from src.models.backbone import NORMS, FunctionalConv2d
from src.models.fpn import FPN
from src.models.preprocess import Preprocess
from src.models.roi_align import MultiScaleRoIAlign, extract_patches, neighbours_inside
from src.models.roi_head import BoxHead, RoILoss, RoIPredictor, RoISampler
from src.models.rpn import AnchorHead, AnchorSampler, DenseAnchorSampler, ProposalGenerator, RPNHead, RPNLoss, canvas_anchors

LOSS_NAMES = ("loss", "rpn_cls_loss", "rpn_box_loss", "roi_cls_loss", "roi_box_loss")


class FasterRCNN(nn.Cell):
    """The weights of the detector and the part of the forward pass that training and inference share.

    Args:
        cfg: the configuration.
        num_classes: K, without background.
        backbone: maps images (B, 3, H, W) to a tuple of features C2..C5; has the attribute `out_channels`, see `build_backbone`.
        norm: class of the BatchNorm layers outside the backbone.
    """

    def __init__(self, cfg: Config, num_classes: int, backbone: nn.Cell, norm: type[nn.Cell] = nn.BatchNorm2d):
        super().__init__()
        rpn, head, channels = cfg.rpn_head, cfg.bbox_head, cfg.backbone.out_channels
        self.backbone = backbone
        fpn = cfg.backbone.fpn
        self.level_index = tuple(fpn.level_index)
        in_channels = [self.backbone.out_channels[i] for i in self.level_index]
        self.fpn = FPN(in_channels, channels, fpn.num_outs, fpn.upsample_mode, norm if fpn.norm == "bn" else None)
        num_anchors = len(rpn.anchor_generator.aspect_ratios) * len(rpn.anchor_generator.anchor_sizes[0])
        self.rpn_head = RPNHead(channels, rpn.feat_channel, num_anchors, rpn.num_convs)
        roi = head.roi_extractor
        self.roi_align = MultiScaleRoIAlign(roi.featmap_strides, head.resolution, roi.sampling_ratio, roi.aligned,
                                            cfg.roi_operator)
        self.box_head = BoxHead(head.head, head.resolution, num_classes, norm)

    def pyramid(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the pyramid levels of normalised images (B, 3, H, W): a tuple of (B, C, H_i, W_i) float32, finest first."""
        features = self.backbone(image)
        chosen = ()
        for i in self.level_index:
            chosen += (features[i],)
        return self.fpn(chosen)


class FeaturesAndRPN(nn.Cell):
    """The convolutions of `network` over whole images: backbone, pyramid, and the RPN head on every cell."""

    def __init__(self, network: FasterRCNN):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, image: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """Return levels, logits and deltas of normalised images (B, 3, H, W), see `FasterRCNN.pyramid` and `RPNHead`."""
        levels = self.network.pyramid(image)
        return levels, *self.network.rpn_head(levels)


class RoIAndAnchorFeatures(nn.Cell):
    """Extracts the features for a training step from the pyramid: pooled RoIs, and patches around the sampled anchors.

    On the CPU, src/cpu_kernels computes both with a single gradient of the levels.
    """

    def __init__(self, roi_align: MultiScaleRoIAlign, num_convs: int = 1):
        super().__init__(auto_prefix=False)
        self.roi_align, self.num_convs = roi_align, num_convs

    def construct(self, levels: tuple[Tensor, ...], rois: Tensor, level: Tensor, y: Tensor,
                  x: Tensor) -> tuple[Tensor, Tensor]:
        """Return pooled RoIs (B * R, C, h, w) and patches (B, C, k, k * S), see `MultiScaleRoIAlign` and `extract_patches`."""
        return self.roi_align(levels, rois), extract_patches(levels, level, y, x, self.num_convs)


class TrainingForward(nn.Cell):
    """Computes the losses of annotated images on a canvas of (height, width) pixels. There are K = `num_classes` classes.

    Attributes:
        anchors: (N, 4) float32 pixels of the canvas, level by level.
        num_anchors: number of anchors per image.
        num_proposals: number of proposals per image.
    """

    def __init__(self, network: FasterRCNN, cfg: Config, num_classes: int, canvas: tuple[int, int]):
        super().__init__(auto_prefix=False)
        anchors = canvas_anchors(cfg.rpn_head.anchor_generator, canvas)
        self.anchors = Tensor(np.concatenate(anchors))
        self.preprocess = Preprocess(cfg.data.train_transforms.item_transforms)
        self.network = network
        self.features_and_rpn = FeaturesAndRPN(network)
        self.anchor_head, self.box_head = AnchorHead(network.rpn_head), network.box_head
        rpn, head = cfg.rpn_head, cfg.bbox_head
        self.is_dense = has_dense_rpn_loss(cfg)
        self.sample_anchors = (DenseAnchorSampler if self.is_dense else AnchorSampler)(rpn.rpn_label_assignment)
        self.rpn_loss = RPNLoss(rpn.smooth_l1_beta)
        self.propose = ProposalGenerator(rpn.train_proposal, [len(level) for level in anchors], canvas)
        self.features = RoIAndAnchorFeatures(network.roi_align, network.rpn_head.num_convs)
        self.sample_rois = RoISampler(head.bbox_assigner, head.add_gt_as_proposals, num_classes)
        self.roi_loss = RoILoss(num_classes, head.bbox_weights, head.smooth_l1_beta)
        self.num_anchors, self.num_proposals = len(self.anchors), self.propose.number

    def construct(self, image: Tensor, valid_size: Tensor, boxes: Tensor, labels: Tensor, mask: Tensor,
                  anchor_priority: Tensor, roi_priority: Tensor) -> Tensor:
        """Return the losses (5,) float32 in the order of LOSS_NAMES: the total, then its four terms.

        Args:
            image: (B, H, W, 3) uint8 RGB.
            valid_size: (B, 2) float32, height and width of each image on its canvas.
            boxes: (B, G, 4) float32 xyxy pixels, padded.
            labels: (B, G) int32, 0..K-1.
            mask: (B, G) bool, False where padded.
            anchor_priority: (B, N) float32, see `src.models.matcher.subsample`.
            roi_priority: (B, R + G) float32, or (B, R) if ground-truth boxes are not added to the proposals.
        """
        net = self.network
        # Proposals have no gradient. Without a dense loss, nor have the dense outputs that they are computed from.
        levels, logits, deltas = self.features_and_rpn(self.preprocess(image, valid_size))
        proposals, valid = self.propose(self.anchors, ops.stop_gradient(logits), ops.stop_gradient(deltas), valid_size)
        rois, target_boxes, label, is_sampled = self.sample_rois(proposals, valid, boxes, labels, mask, roi_priority)
        anchor_targets = self.sample_anchors(self.anchors, boxes, mask, anchor_priority)
        if self.is_dense:
            pooled = net.roi_align(levels, rois)
        else:
            index, *anchor_targets = anchor_targets
            cells = net.rpn_head.locate_anchors(index, levels)
            pooled, patches = self.features(levels, rois, *cells)
            logits, deltas = self.anchor_head(index, patches, neighbours_inside(levels, *cells))
        rpn_cls, rpn_box = self.rpn_loss(logits, deltas, *anchor_targets)
        class_logits, box_deltas = self.box_head(pooled)
        roi_cls, roi_box = self.roi_loss(class_logits, box_deltas, rois, target_boxes, label, is_sampled)
        return ops.stack((rpn_cls + rpn_box + roi_cls + roi_box, rpn_cls, rpn_box, roi_cls, roi_box))


class InferenceForward(nn.Cell):
    """Computes boxes and scores of every proposal and class, before per-class NMS.

    See `TrainingForward` for the arguments and the attribute `anchors`.
    """

    def __init__(self, network: FasterRCNN, cfg: Config, canvas: tuple[int, int]):
        super().__init__(auto_prefix=False)
        anchors = canvas_anchors(cfg.rpn_head.anchor_generator, canvas)
        self.anchors = Tensor(np.concatenate(anchors))
        self.preprocess = Preprocess(cfg.data.eval_transforms.item_transforms)
        self.network = network
        self.features_and_rpn, self.box_head = FeaturesAndRPN(network), network.box_head
        self.propose = ProposalGenerator(cfg.rpn_head.test_proposal, [len(level) for level in anchors], canvas)
        self.predict = RoIPredictor(cfg.bbox_head.bbox_weights, cfg.bbox_head.clip_first)

    def construct(self, image: Tensor, valid_size: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (B, R, K, 4) in canvas pixels and scores (B, R, K), float32.

        Args:
            image: (B, H, W, 3) uint8 RGB.
            valid_size: (B, 2) float32, height and width of each image on its canvas.
        """
        levels, logits, deltas = self.features_and_rpn(self.preprocess(image, valid_size))
        proposals, valid = self.propose(self.anchors, logits, deltas, valid_size)
        class_logits, box_deltas = self.box_head(self.network.roi_align(levels, proposals))
        return self.predict(class_logits, box_deltas, proposals, valid, valid_size)


def has_dense_rpn_loss(cfg: Config) -> bool:
    """Return whether the RPN's loss reads the outputs of all anchors, with weight 0 for anchors that are not sampled. On the CPU,
    it reads patches around the sampled anchors, because a backward pass over all cells would take a large part of a step."""
    return cfg.device_target != "CPU"


def can_overflow(cfg: Config) -> bool:
    """Return whether gradients need a loss scale: the largest float16 is 65504; bfloat16 has the range of float32."""
    return cfg.mix and cfg.mix_dtype == "float16"


def to_mixed_precision(network: nn.Cell, dtype: ms.Type = ms.float16) -> nn.Cell:
    """Set the convolutions and dense layers of `network` to compute in `dtype`, and return it. Weights stay float32."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, (nn.Conv2d, nn.Dense)):
            cell.to_float(dtype)
        elif isinstance(cell, FunctionalConv2d):
            cell.compute_dtype = dtype
        elif isinstance(cell, NORMS):
            cell.to_float(ms.float32)
    return network
