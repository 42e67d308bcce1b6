"""Converts the network to ONNX: the operators of `InferenceForward`, in the same order and with the same shapes."""
from __future__ import annotations

import numpy as np

from src.cpu_kernels.lowering import NotLoweredError, lower, pyramid
from src.errors import UserError
from src.export.onnx_graph import Graph
from src.models.boxes import MAX_SIZE_DELTA, MIN_SIDE
from src.models.faster_rcnn import InferenceForward
from src.models.roi_align import CANONICAL_LEVEL, CANONICAL_SIZE
from src.models.rpn import REJECTED, UNIT_WEIGHTS


def outputs_of_image(forward: InferenceForward) -> tuple[int, int]:
    """Return R and K, the numbers of proposals and classes in the outputs."""
    return forward.propose.number, forward.network.box_head.classes.out_channels - 1


def network_outputs(op: Graph, forward: InferenceForward, image: str, valid_size: str,
                    shape: tuple[int, int, int]) -> tuple[str, str]:
    """Add the operators of an `InferenceForward` of plain operators, and return boxes (B, R, K, 4) and scores (B, R, K).

    image: (B, H, W, 3) uint8; valid_size: (B, 2) float32; shape: (B, H, W).

    Raises:
        UserError: the backbone is not one of mindcv's ResNets.
    """
    net, batch = forward.network, shape[0]
    levels = _pyramid(op, net, _preprocess(op, forward.preprocess, image, valid_size, shape[1:]))
    limit = op.Gather(valid_size, np.array([1, 0, 1, 0]), axis=1)  # (B, 4): x, y, x, y
    proposals, valid = _propose(op, forward, levels, limit, batch)
    pooled = _roi_align(op, net.roi_align, levels, proposals, batch, forward.propose.number)
    return _predict(op, forward, pooled, proposals, valid, limit, batch)


def _preprocess(op, cell, image, valid_size, canvas):
    """Return the normalised and padded image (B, 3, H, W). Each channel is normalised with a look-up table."""
    index = op.cast(op.Transpose(op.Gather(image, np.array(cell.channels), axis=3), perm=[0, 3, 1, 2]), np.int32)
    table = cell.table()
    index = op.Add(index, np.arange(3, dtype=np.int32).reshape(1, 3, 1, 1) * np.int32(table.shape[1]))
    values = op.Gather(table.reshape(-1), index)
    if cell.pad_first:
        return values
    for end, length, shape in zip(op.Split(valid_size, np.array([1, 1]), axis=1, outputs=2), canvas, ((-1, 1), (1, -1))):
        inside = op.Less(np.arange(length, dtype=np.float32).reshape(1, 1, *shape), op.reshape(end, -1, 1, 1, 1))
        values = op.Mul(values, op.cast(inside, np.float32))
    return values


def _pyramid(op, network, image):
    """Return the levels (B, C, H_i, W_i) of backbone and FPN for a normalised image (B, 3, H, W)."""
    features = []
    for part in network.backbone.parts:
        try:
            image = lower(part, op, image, training=False)
        except NotLoweredError as error:
            raise UserError(f"backbone.name: the backbone has a cell {error}, which cannot be written as ONNX operators; use "
                            "a ResNet, or export with --mindir True.") from error
        features.append(image)
    return pyramid(network.fpn, op, [features[i] for i in network.level_index], training=False)


def _propose(op, forward, levels, limit, batch):
    """Return proposals (B, R, 4) by descending score, and whether each is valid (1) or not (0), (B, R, 1) float32."""
    cell, head, anchors, best_boxes, best_scores = forward.propose, forward.network.rpn_head, forward.anchors.asnumpy(), [], []
    for (first, end, kept), level in zip(cell.levels, levels):
        hidden = op.convolution(level, head.conv, relu=True)
        if head.conv2 is not None:
            hidden = op.convolution(hidden, head.conv2, relu=True)
        logits, deltas = (op.reshape(op.Transpose(op.convolution(hidden, conv), perm=[0, 2, 3, 1]), batch, -1, *columns)
                          for conv, columns in ((head.objectness, ()), (head.deltas, (4,))))
        boxes, scores = _best_of_level(op, cell, kept, anchors[first:end], logits, deltas, limit, batch)
        best_boxes.append(boxes)
        best_scores.append(scores)
    scores, best = op.TopK(op.Concat(*best_scores, axis=1), np.array([cell.number]), axis=1, outputs=2)
    valid = op.cast(op.Greater(op.Unsqueeze(scores, np.array([2])), np.float32(REJECTED)), np.float32)
    boxes = op.Mul(_rows(op, op.Concat(*best_boxes, axis=1), best), valid)
    if cell.suppress_jointly is not None:
        kept = _survivors(op, boxes, cell.suppress_jointly.threshold, batch, cell.number)
        valid = op.ScatterND(np.zeros((batch, cell.number, 1), np.float32), kept, op.GatherND(valid, kept))
    return boxes, valid


def _best_of_level(op, cell, kept, anchors, logits, deltas, limit, batch):
    """Return the `kept` best boxes of one level (B, kept, 4) by descending logit, and their scores (B, kept). The score of small
    boxes and of boxes that NMS removes is REJECTED."""
    if cell.drop_small_first:
        _, large = _boxes(op, cell, deltas, anchors[None], limit, batch)
        logits = op.Where(op.Squeeze(large, np.array([2])), logits, np.float32(REJECTED))
    scores, index = op.TopK(logits, np.array([kept]), axis=1, outputs=2)
    boxes, large = _boxes(op, cell, _rows(op, deltas, index), op.Gather(anchors, index), limit, batch)
    boxes = op.Mul(boxes, op.cast(large, np.float32))
    places = _survivors(op, boxes, cell.suppress.threshold, batch, kept)
    kept_scores = op.ScatterND(np.full((batch, kept, 1), REJECTED, np.float32), places,
                               op.GatherND(op.Unsqueeze(scores, np.array([2])), places))
    return boxes, op.Squeeze(op.Where(large, kept_scores, np.float32(REJECTED)), np.array([2]))


def _boxes(op, cell, deltas, anchors, limit, batch):
    """Return boxes (B, n, 4), decoded from their anchors and clipped, and whether each is large enough, (B, n, 1) bool."""
    boxes = _decode(op, deltas, anchors, UNIT_WEIGHTS)
    boxes = _clip(op, boxes, op.reshape(limit, batch, 1, 4) if cell.limit is None else cell.limit.asnumpy()[:, [1, 0, 1, 0]])
    low, high = _corners(op, boxes)
    return boxes, op.Not(op.Less(op.ReduceMin(op.Sub(high, low), axes=[2]), np.float32(cell.min_size)))


def _survivors(op, boxes, threshold, batch, count):
    """Return the indices (image, box) of the boxes (B, n, 4), sorted by descending score, that NMS keeps."""
    # Use ranks instead of scores, as in the network. NonMaxSuppression returns indices (image, 0, box) of the kept boxes.
    ranks = np.broadcast_to(np.arange(count, 0, -1, dtype=np.float32), (batch, 1, count))
    chosen = op.NonMaxSuppression(boxes, ranks, np.array([count]), np.array([threshold], np.float32))
    return op.Gather(chosen, np.array([0, 2]), axis=1)


def _roi_align(op, cell, levels, rois, batch, number):
    """Return pooled features (B * R, C, h, w). Each RoI is pooled from the level that matches its size.

    All RoIs of a level are pooled together. Then the rows are put back into the order of the RoIs.
    """
    rois = op.reshape(rois, -1, 4)
    low, high = _corners(op, rois)
    width, height = op.Split(op.Relu(op.Sub(high, low)), np.array([1, 1]), axis=1, outputs=2)
    size = op.Max(op.Sqrt(op.Mul(width, height)), np.float32(MIN_SIDE))
    log2 = op.Div(op.Log(op.Div(size, np.float32(CANONICAL_SIZE))), np.log(np.float32(2)))
    level = op.Floor(op.Add(op.Add(log2, np.float32(CANONICAL_LEVEL)), np.float32(1e-6)))
    level = op.Clip(op.Sub(level, np.float32(cell.finest)), np.float32(0), np.float32(cell.num_levels - 1))
    level = op.reshape(level, -1)

    pool, image_of = cell.pool, np.repeat(np.arange(batch), number)
    members, pooled = [], []
    for i, scale in enumerate(cell.inverse_stride.asnumpy()):
        member = op.reshape(op.NonZero(op.Equal(level, np.float32(i))), -1)
        members.append(member)
        pooled.append(op.RoiAlign(levels[i], op.Gather(rois, member), op.Gather(image_of, member), output_height=pool.resolution,
                                  output_width=pool.resolution, sampling_ratio=pool.samples, spatial_scale=float(scale),
                                  coordinate_transformation_mode="half_pixel" if pool.aligned else "output_half_pixel"))
    row_of = op.ScatterElements(np.zeros(batch * number, np.int64), op.Concat(*members, axis=0), np.arange(batch * number))
    return op.Gather(op.Concat(*pooled, axis=0), row_of)


def _predict(op, forward, pooled, proposals, valid, limit, batch):
    """Return boxes (B, R, K, 4) and scores (B, R, K) for pooled features (B * R, C, h, w)."""
    def dense(layer, x):
        return op.Gemm(x, layer.weight.asnumpy(), layer.bias.asnumpy(), transB=1)

    head, (number, classes) = forward.network.box_head, outputs_of_image(forward)
    for conv in head.convs:
        pooled = op.convolution(pooled, conv.conv, conv.norm, relu=True)
    hidden = op.Relu(dense(head.fc1, op.reshape(pooled, batch * number, -1)))
    if head.fc2 is not None:
        hidden = op.Relu(dense(head.fc2, hidden))
    logits = op.reshape(dense(head.classes, hidden), batch, number, classes + 1)
    deltas = op.reshape(dense(head.deltas, hidden), batch, number, classes, 4)
    scores, _ = op.Split(op.Softmax(logits, axis=2), np.array([classes, 1]), axis=2, outputs=2)
    boxes = _decode(op, deltas, op.reshape(proposals, batch, number, 1, 4), forward.predict.bbox_weights)
    if forward.predict.clipped:
        boxes = _clip(op, boxes, op.reshape(limit, batch, 1, 1, 4))
    return boxes, op.Mul(scores, valid)


def _rows(op, table, index):
    """Return the rows (B, S, C) of table (B, N, C) at index (B, S)."""
    return op.GatherND(table, op.Unsqueeze(index, np.array([2])), batch_dims=1)


def _corners(op, boxes):
    """Return the upper left and lower right corners (..., 2) of boxes (..., 4)."""
    return op.Split(boxes, np.array([2, 2]), axis=-1, outputs=2)


def _decode(op, deltas, reference, weights):
    """Decode boxes as `src.models.boxes.decode` does, with x and y in one operator."""
    low, high = _corners(op, reference)
    side = op.Sub(high, low)
    centre = op.Add(low, op.Mul(side, np.float32(0.5)))
    shift, growth = _corners(op, op.Div(deltas, np.array(weights, np.float32)))
    centre = op.Add(op.Mul(shift, side), centre)
    half = op.Mul(op.Mul(op.Exp(op.Min(growth, np.float32(MAX_SIZE_DELTA))), side), np.float32(0.5))
    return op.Concat(op.Sub(centre, half), op.Add(centre, half), axis=-1)


def _clip(op, boxes, limit):
    """Return boxes clipped to 0..limit, where the shape of `limit` broadcasts to the boxes."""
    return op.Min(op.Max(boxes, np.float32(0)), limit)
