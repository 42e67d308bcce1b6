"""Region proposal network (arXiv:1506.01497, section 3.1): anchors, their objectness, box deltas and losses, and proposals."""
from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import Normal

from src.config import schema
from src.models.boxes import HALVES, SUM, TOP_K, clip, decode, encode, gather_rows, smooth_l1_sum
from src.models.matcher import Matcher, sample_masks, subsample

# The RPN's deltas are not weighted, unlike the deltas of the box head.
UNIT_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


def cell_anchors(sizes: list[float], aspect_ratios: list[float], rounded: bool) -> np.ndarray:
    """Return the anchors of one cell, (A, 4) float32 xyxy in pixels around the origin: all ratios for each size.

    Args:
        sizes: square roots of the areas, in pixels.
        aspect_ratios: height / width.
        rounded: whether to round corners to whole pixels, halves to even, as torchvision does.
    """
    ratio_root = np.sqrt(np.asarray(aspect_ratios, np.float32))
    sizes = np.asarray(sizes, np.float32)
    height = (ratio_root[:, None] * sizes).reshape(-1)
    width = ((1 / ratio_root)[:, None] * sizes).reshape(-1)
    anchors = np.stack((-width, -height, width, height), 1) / 2
    return np.round(anchors) if rounded else anchors


def canvas_anchors(generator: schema.AnchorGenerator, canvas: tuple[int, int]) -> list[np.ndarray]:
    """Return the anchors of each level of a canvas (height, width), (H * W * A, 4) float32 xyxy in pixels, row-major over
    (y, x, anchor). The anchors of cell (y, x) are centred on pixel (x * x_stride, y * y_stride)."""
    levels = []
    for stride, sizes in zip(generator.strides, generator.anchor_sizes):
        height, width = (-(-side // stride) for side in canvas)
        y_stride = x_stride = stride
        if generator.strides_from_canvas:
            y_stride, x_stride = canvas[0] // height, canvas[1] // width
        x, y = np.meshgrid(np.arange(width) * x_stride, np.arange(height) * y_stride)
        shift = np.stack((x, y, x, y), -1).reshape(-1, 1, 4)
        anchors = cell_anchors(sizes, generator.aspect_ratios, generator.rounded)
        levels.append((shift + anchors).reshape(-1, 4).astype(np.float32))
    return levels


class RPNHead(nn.Cell):
    """`num_convs` (1 or 2) 3x3 convolutions with `channels` outputs, and two 1x1 convolutions, shared by all levels. A cell has
    A = `num_anchors` anchors."""

    def __init__(self, in_channels: int, channels: int, num_anchors: int, num_convs: int = 1):
        super().__init__()
        self.num_anchors, self.num_convs = num_anchors, num_convs
        self.conv = _conv(in_channels, channels, Normal(0.01), pad_mode="same")
        self.conv2 = _conv(channels, channels, Normal(0.01), pad_mode="same") if num_convs == 2 else None
        self.objectness = nn.Conv2d(channels, num_anchors, 1, has_bias=True, weight_init=Normal(0.01), bias_init="zeros")
        self.deltas = nn.Conv2d(channels, 4 * num_anchors, 1, has_bias=True, weight_init=Normal(0.01), bias_init="zeros")
        # The same weights, applied to 3x3 patches placed side by side.
        self.patch_conv = _conv(in_channels, channels, "zeros", stride=3, pad_mode="valid")
        self.patch_conv2 = _conv(channels, channels, "zeros", stride=3, pad_mode="valid") if num_convs == 2 else None
        for patch_conv, conv in ((self.patch_conv, self.conv), (self.patch_conv2, self.conv2)):
            if patch_conv is not None and conv is not None:
                patch_conv.weight, patch_conv.bias = conv.weight, conv.bias

    def construct(self, levels: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return objectness logits (B, N) and box deltas (B, N, 4) of all anchors of levels (B, C, H_i, W_i), float32.

        N is the sum of H_i * W_i * A, level by level, row-major over (y, x, anchor).
        """
        # Tuples, because with a growing list the graph compiler would fall back to the Python interpreter.
        logits, deltas = (), ()
        for level in levels:
            hidden = ops.relu(self.conv(level))
            if self.conv2 is not None:
                hidden = ops.relu(self.conv2(hidden))
            batch = level.shape[0]
            logits += (ops.cast(self.objectness(hidden), ms.float32).transpose(0, 2, 3, 1).reshape(batch, -1),)
            deltas += (ops.cast(self.deltas(hidden), ms.float32).transpose(0, 2, 3, 1).reshape(batch, -1, 4),)
        return ops.concat(logits, 1), ops.concat(deltas, 1)

    def locate_anchors(self, index: Tensor, levels: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Return level, y and x, each (B, S) int32, of the cells of the anchors with index (B, S) int32."""
        widths, firsts, count = (), (), 0
        for feature in levels:
            height, width = feature.shape[2:]
            widths, firsts = widths + (width,), firsts + (count,)
            count += height * width * self.num_anchors
        begun = ops.cast(index.expand_dims(2) >= Tensor(firsts, ms.int32), ms.float32)
        level = ops.cast(SUM(begun, 2), ms.int32) - 1
        cell = (index - ops.gather(Tensor(firsts, ms.int32), level, 0)) // self.num_anchors
        width = ops.gather(Tensor(widths, ms.int32), level, 0)
        y = cell // width
        return level, y, cell - y * width


def _conv(in_channels, channels, weight_init, **options):
    return nn.Conv2d(in_channels, channels, 3, has_bias=True, weight_init=weight_init, bias_init="zeros", **options)


class AnchorHead(nn.Cell):
    """The RPN head for selected anchors. Its outputs equal the outputs of `RPNHead` for these anchors.

    The 3x3 convolutions run only on the features around these anchors. The backward pass of a loss on a few hundred anchors
    then does not run over every cell of the pyramid. The weights belong to `rpn_head`.
    """

    def __init__(self, rpn_head: RPNHead):
        super().__init__(auto_prefix=False)
        self.num_anchors = rpn_head.num_anchors
        self.outputs = RPNPatchHead(rpn_head)

    def construct(self, index: Tensor, patches: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, S) and deltas (B, S, 4) float32.

        Args:
            index: (B, S) int32, index of each anchor.
            patches: (B, C, k, k * S) float32, features around the cells returned by `RPNHead.locate_anchors`.
            inside: (B, 3, 3 * S) float32, see `src.models.roi_align.neighbours_inside`; read by a second convolution only.
        """
        batch, number = index.shape
        logits, deltas = self.outputs(patches, inside)
        anchor = (index - index // self.num_anchors * self.num_anchors).reshape(-1, 1)
        logits, deltas = logits.reshape(-1, self.num_anchors), deltas.reshape(-1, self.num_anchors, 4)
        return ops.gather_elements(logits, 1, anchor).reshape(batch, number), gather_rows(deltas, anchor).reshape(batch, -1, 4)


class RPNPatchHead(nn.Cell):
    """The convolutions of the RPN on patches, with the weights of `rpn_head`."""

    def __init__(self, rpn_head: RPNHead):
        super().__init__(auto_prefix=False)
        self.patch_conv, self.objectness, self.deltas = rpn_head.patch_conv, rpn_head.objectness, rpn_head.deltas
        self.patch_conv2 = rpn_head.patch_conv2

    def construct(self, patches: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, 1, S, A) and deltas (B, 1, S, 4 A) of each cell's anchors, float32; see `AnchorHead`."""
        hidden = ops.relu(self.patch_conv(patches))
        if self.patch_conv2 is not None:
            # The second convolution reads zeros outside the level, not the outputs of the first one there.
            hidden = ops.relu(self.patch_conv2(hidden * ops.cast(inside.expand_dims(1), hidden.dtype)))
        logits, deltas = self.objectness(hidden), self.deltas(hidden)
        return ops.cast(logits, ms.float32).transpose(0, 2, 3, 1), ops.cast(deltas, ms.float32).transpose(0, 2, 3, 1)


class AnchorSampler(nn.Cell):
    """Samples anchors for training the RPN and computes their targets.

    An anchor is positive if its IoU with a box is at least `positive_overlap`, or if no other anchor has a higher IoU with that
    box. It is negative if it is not positive and its IoU with every box is below `negative_overlap`.
    """

    def __init__(self, cfg: schema.RPNLabelAssignment):
        super().__init__()
        self.number = cfg.rnp_sample_batch
        self.max_positive = int(cfg.rnp_sample_batch * cfg.fg_fraction)
        self.positive_overlap = cfg.positive_overlap
        self.negative_overlap = cfg.negative_overlap
        self.match = Matcher()

    def construct(self, anchors: Tensor, boxes: Tensor, mask: Tensor, priority: Tensor) -> tuple[Tensor, ...]:
        """Sample S anchors per image.

        Args:
            anchors: (N, 4) float32 xyxy pixels.
            boxes: (B, G, 4) float32 xyxy pixels.
            mask: (B, G) bool, False where padded.
            priority: (B, N) float32, see `subsample`.

        Returns:
            index: (B, S) int32, index of each sampled anchor.
            target: (B, S, 4) float32, deltas to the box that each anchor overlaps most; 0 if the anchor is not positive.
            is_positive: (B, S) bool.
            is_sampled: (B, S) bool, False in unused slots.
        """
        positive, negative, box_index = self._labels(anchors, boxes, mask)
        index, is_positive, is_sampled = subsample(positive, negative, priority, self.number, self.max_positive)
        target_boxes = gather_rows(boxes, ops.gather_elements(box_index, 1, index))
        return index, _targets(target_boxes, ops.gather(anchors, index, 0), is_positive), is_positive, is_sampled

    def _labels(self, anchors, boxes, mask):
        """Return positive and negative (B, N) bool, and the index (B, N) of the box that each anchor overlaps most."""
        overlap, box_index, is_best = self.match(anchors.expand_dims(0), boxes, mask)
        positive = ops.logical_or(overlap >= self.positive_overlap, is_best)
        return positive, ops.logical_and(overlap < self.negative_overlap, ops.logical_not(positive)), box_index


class DenseAnchorSampler(AnchorSampler):
    """Samples the same anchors as `AnchorSampler`, as masks of all anchors."""

    def construct(self, anchors: Tensor, boxes: Tensor, mask: Tensor, priority: Tensor) -> tuple[Tensor, ...]:
        """Return target (B, N, 4), is_positive (B, N) and is_sampled (B, N), see `AnchorSampler`."""
        positive, negative, box_index = self._labels(anchors, boxes, mask)
        is_positive, is_sampled = sample_masks(positive, negative, priority, self.number, self.max_positive)
        return _targets(gather_rows(boxes, box_index), anchors.expand_dims(0), is_positive), is_positive, is_sampled


def _targets(boxes, reference, is_positive):
    """Return the deltas (B, S, 4) of boxes (B, S, 4) for reference (B or 1, S, 4)."""
    # Anchors that are not positive encode themselves: the deltas are finite, and have weight 0 in the loss.
    boxes = ops.select(is_positive.expand_dims(2).broadcast_to(boxes.shape), boxes, reference.broadcast_to(boxes.shape))
    return ops.stop_gradient(encode(boxes, reference, UNIT_WEIGHTS))


class RPNLoss(nn.Cell):
    """Objectness and box losses of the sampled anchors (smooth L1 with `beta`), divided by their number in the batch."""

    def __init__(self, beta: float):
        super().__init__()
        self.beta = beta

    def construct(self, logits: Tensor, deltas: Tensor, target: Tensor, is_positive: Tensor,
                  is_sampled: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objectness loss and the box loss, float32 scalars.

        Args:
            logits, deltas: (B, S) and (B, S, 4) float32, predictions for the sampled anchors, or for all with S = N.
            target, is_positive, is_sampled: outputs of `AnchorSampler` or `DenseAnchorSampler`.
        """
        positive_weight, sampled_weight = ops.cast(is_positive, ms.float32), ops.cast(is_sampled, ms.float32)
        count = ops.maximum(SUM(sampled_weight), 1.0)
        objectness = binary_cross_entropy_sum(logits, positive_weight, sampled_weight)
        box = smooth_l1_sum(deltas - target, self.beta, positive_weight)
        return objectness / count, box / count


def binary_cross_entropy_sum(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the sum over all elements of weight * BCE(sigmoid(logits), target); all inputs are (B, S) float32."""
    # log(1 + exp(-|x|)) never overflows.
    loss = ops.relu(logits) - logits * target + ops.log1p(ops.exp(-ops.abs(logits)))
    return SUM(loss * weight)


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
