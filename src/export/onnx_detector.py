"""Converts a detector to ONNX operators: the operators of `InferenceForward`, in the same order and with the same shapes."""
from __future__ import annotations

import numpy as np
import onnx

from src.export.onnx_backbone import pyramid, rpn_outputs
from src.export.onnx_graph import Graph
from src.models.boxes import MAX_SIZE_DELTA, MIN_SIDE
from src.models.faster_rcnn import InferenceForward
from src.models.proposals import REJECTED
from src.models.roi_align import CANONICAL_LEVEL, CANONICAL_SIZE
from src.models.rpn import UNIT_WEIGHTS


def detector_model(forward: InferenceForward, batch: int, height: int, width: int) -> onnx.ModelProto:
    """Return the ONNX model of an `InferenceForward` for inputs of one shape.

    Args:
        forward: InferenceForward that consists of plain operators.
        batch: batch size B.
        height: height of the canvas in pixels.
        width: width of the canvas in pixels.

    Raises:
        UserError: the backbone is not one of mindcv's ResNets.
    """
    graph = Graph()
    boxes, scores = network_outputs(graph, forward, "image", "valid_size", (batch, height, width))
    graph.rename(boxes, "boxes")
    graph.rename(scores, "scores")
    shape = (batch, *outputs_of_image(forward))
    return graph.model({"image": (np.uint8, (batch, height, width, 3)), "valid_size": (np.float32, (batch, 2))},
                       {"boxes": (np.float32, (*shape, 4)), "scores": (np.float32, shape)})


def outputs_of_image(forward: InferenceForward) -> tuple[int, int]:
    """Return R and K, the numbers of proposals and classes in the outputs."""
    return forward.propose.number, forward.network.box_head.classes.out_channels - 1


def network_outputs(graph: Graph, forward: InferenceForward, image: str, valid_size: str,
                    shape: tuple[int, int, int]) -> tuple[str, str]:
    """Return boxes (B, R, K, 4) and scores (B, R, K). image: (B, H, W, 3) uint8; valid_size: (B, 2) float32; shape: (B, H, W)."""
    net, (batch, height, width) = forward.network, shape
    levels = pyramid(graph, net, _preprocess(graph, forward.preprocess, image, valid_size, height, width))
    limit = graph.add("Gather", valid_size, np.array([1, 0, 1, 0]), axis=1)  # (B, 4): x, y, x, y
    outputs = rpn_outputs(graph, net.rpn_head, levels, batch)
    proposals, valid = _propose(graph, forward.propose, forward.anchors.asnumpy(), outputs, limit, batch)
    pooled = _roi_align(graph, net.roi_align, levels, proposals, batch, forward.propose.number)
    rows = (batch, *outputs_of_image(forward))
    logits, deltas = _box_head(graph, net.box_head, pooled, rows)
    return _predict(graph, forward.predict, logits, deltas, proposals, valid, limit, rows)


def _preprocess(graph, cell, image, valid_size, height, width):
    """Return the normalised and padded image (B, 3, H, W). Each channel is normalised with a look-up table."""
    channels = graph.add("Gather", image, np.array(cell.channels), axis=3)
    index = graph.add("Cast", graph.add("Transpose", channels, perm=[0, 3, 1, 2]), to=onnx.TensorProto.INT32)
    table = cell.table()
    index = graph.add("Add", index, np.arange(3, dtype=np.int32).reshape(1, 3, 1, 1) * np.int32(table.shape[1]))
    values = graph.add("Gather", table.reshape(-1), index)
    if cell.pad_first:
        return values
    ends = graph.add("Split", valid_size, np.array([1, 1]), axis=1, outputs=2)
    for end, shape in zip(ends, ((1, 1, height, 1), (1, 1, 1, width))):
        place = np.arange(max(shape), dtype=np.float32).reshape(shape)
        inside = graph.add("Less", place, graph.reshape(end, -1, 1, 1, 1))
        values = graph.add("Mul", values, graph.add("Cast", inside, to=onnx.TensorProto.FLOAT))
    return values


def _propose(graph, cell, all_anchors, outputs, limit, batch):
    """Return proposals (B, R, 4) by descending score, and whether each is valid (1) or not (0), (B, R, 1) float32."""
    boxes, scores = [], []
    for (first, end, kept), (logits, deltas) in zip(cell.levels, outputs):
        level_boxes, level_scores = _best_of_level(graph, cell, kept, all_anchors[first:end], logits, deltas, limit, batch)
        boxes, scores = [*boxes, level_boxes], [*scores, level_scores]
    scores, best = graph.add("TopK", graph.add("Concat", *scores, axis=1), np.array([cell.number]), axis=1, outputs=2)
    valid = graph.add("Greater", graph.add("Unsqueeze", scores, np.array([2])), np.float32(REJECTED))
    valid = graph.add("Cast", valid, to=onnx.TensorProto.FLOAT)
    boxes = graph.add("Mul", _rows(graph, graph.add("Concat", *boxes, axis=1), best), valid)
    if cell.suppress_jointly is not None:
        kept = _survivors(graph, boxes, cell.suppress_jointly.threshold, batch, cell.number)
        valid = graph.add("ScatterND", np.zeros((batch, cell.number, 1), np.float32), kept, graph.add("GatherND", valid, kept))
    return boxes, valid


def _best_of_level(graph, cell, kept, anchors, logits, deltas, limit, batch):
    """Return the `kept` best boxes of one level (B, kept, 4) by descending logit, and their scores (B, kept). The score of small
    boxes and of boxes that NMS removes is REJECTED."""
    if cell.drop_small_first:
        _, large = _boxes(graph, cell, deltas, anchors[None], limit, batch)
        logits = graph.add("Where", graph.add("Squeeze", large, np.array([2])), logits, np.float32(REJECTED))
    scores, index = graph.add("TopK", logits, np.array([kept]), axis=1, outputs=2)
    boxes, large = _boxes(graph, cell, _rows(graph, deltas, index), graph.add("Gather", anchors, index), limit, batch)
    boxes = graph.add("Mul", boxes, graph.add("Cast", large, to=onnx.TensorProto.FLOAT))
    places = _survivors(graph, boxes, cell.suppress.threshold, batch, kept)
    out = np.full((batch, kept, 1), REJECTED, np.float32)
    chosen_scores = graph.add("GatherND", graph.add("Unsqueeze", scores, np.array([2])), places)
    kept_scores = graph.add("ScatterND", out, places, chosen_scores)
    return boxes, graph.add("Squeeze", graph.add("Where", large, kept_scores, np.float32(REJECTED)), np.array([2]))


def _boxes(graph, cell, deltas, anchors, limit, batch):
    """Return boxes (B, n, 4), decoded from their anchors and clipped, and whether each is large enough, (B, n, 1) bool."""
    boxes = _decode(graph, deltas, anchors, UNIT_WEIGHTS)
    limit = graph.reshape(limit, batch, 1, 4) if cell.limit is None else cell.limit.asnumpy()[:, [1, 0, 1, 0]]
    boxes = _clip(graph, boxes, limit)
    low, high = _halves(graph, boxes)
    shortest = graph.add("ReduceMin", graph.add("Sub", high, low), axes=[2])
    return boxes, graph.add("Not", graph.add("Less", shortest, np.float32(cell.min_size)))


def _survivors(graph, boxes, threshold, batch, count):
    """Return the indices (image, box) of the boxes (B, n, 4), sorted by descending score, that NMS keeps."""
    # Use ranks instead of scores, as in the network. NonMaxSuppression returns indices (image, 0, box) of the kept boxes.
    ranks = np.broadcast_to(np.arange(count, 0, -1, dtype=np.float32), (batch, 1, count))
    chosen = graph.add("NonMaxSuppression", boxes, ranks, np.array([count]), np.array([threshold], np.float32))
    return graph.add("Gather", chosen, np.array([0, 2]), axis=1)


def _roi_align(graph, cell, levels, rois, batch, number):
    """Return pooled features (B * R, C, h, w). Each RoI is pooled from the level that matches its size.

    All RoIs of a level are pooled together. Then the rows are put back into the order of the RoIs.
    """
    rois = graph.reshape(rois, -1, 4)
    low, high = _halves(graph, rois)
    width, height = graph.add("Split", graph.add("Relu", graph.add("Sub", high, low)), np.array([1, 1]), axis=1, outputs=2)
    size = graph.add("Max", graph.add("Sqrt", graph.add("Mul", width, height)), np.float32(MIN_SIDE))
    log2 = graph.add("Div", graph.add("Log", graph.add("Div", size, np.float32(CANONICAL_SIZE))), np.log(np.float32(2)))
    level = graph.add("Floor", graph.add("Add", graph.add("Add", log2, np.float32(CANONICAL_LEVEL)), np.float32(1e-6)))
    level = graph.add("Clip", graph.add("Sub", level, np.float32(cell.finest)), np.float32(0), np.float32(cell.num_levels - 1))
    level = graph.reshape(level, -1)

    pool, image_of = cell.pool, np.repeat(np.arange(batch), number)
    mode = "half_pixel" if pool.aligned else "output_half_pixel"
    members, pooled = [], []
    for i, scale in enumerate(cell.inverse_stride.asnumpy()):
        member = graph.reshape(graph.add("NonZero", graph.add("Equal", level, np.float32(i))), -1)
        members.append(member)
        pooled.append(graph.add("RoiAlign", levels[i], graph.add("Gather", rois, member), graph.add("Gather", image_of, member),
                                output_height=pool.resolution, output_width=pool.resolution, sampling_ratio=pool.samples,
                                spatial_scale=float(scale), coordinate_transformation_mode=mode))
    row_of = graph.add("ScatterElements", np.zeros(batch * number, np.int64), graph.add("Concat", *members, axis=0),
                       np.arange(batch * number))
    return graph.add("Gather", graph.add("Concat", *pooled, axis=0), row_of)


def _box_head(graph, head, pooled, shape):
    """Return logits (B, R, K + 1) and deltas (B, R, K, 4) for pooled features (B * R, C, h, w). `shape` is (B, R, K)."""
    batch, number, classes = shape
    hidden = graph.reshape(pooled, batch * number, -1)
    for layer in (head.fc1, head.fc2):
        hidden = graph.add("Relu", _dense(graph, layer, hidden))
    return (graph.reshape(_dense(graph, head.classes, hidden), batch, number, classes + 1),
            graph.reshape(_dense(graph, head.deltas, hidden), batch, number, classes, 4))


def _predict(graph, cell, logits, deltas, proposals, valid, limit, shape):
    """Return boxes (B, R, K, 4) and scores (B, R, K)."""
    batch, number, classes = shape
    scores, _ = graph.add("Split", graph.add("Softmax", logits, axis=2), np.array([classes, 1]), axis=2, outputs=2)
    boxes = _decode(graph, deltas, graph.reshape(proposals, batch, number, 1, 4), cell.bbox_weights)
    if cell.clipped:
        boxes = _clip(graph, boxes, graph.reshape(limit, batch, 1, 1, 4))
    return boxes, graph.add("Mul", scores, valid)


def _dense(graph, layer, x):
    return graph.add("Gemm", x, layer.weight.asnumpy(), layer.bias.asnumpy(), transB=1)


def _rows(graph, table, index):
    """Return the rows (B, S, C) of table (B, N, C) at index (B, S)."""
    return graph.add("GatherND", table, graph.add("Unsqueeze", index, np.array([2])), batch_dims=1)


def _halves(graph, boxes):
    """Return the upper left and lower right corners (..., 2) of boxes (..., 4)."""
    return graph.add("Split", boxes, np.array([2, 2]), axis=-1, outputs=2)


def _decode(graph, deltas, reference, weights):
    """Decode boxes as `src.models.boxes.decode` does, with x and y in one operator."""
    low, high = _halves(graph, reference)
    side = graph.add("Sub", high, low)
    centre = graph.add("Add", low, graph.add("Mul", side, np.float32(0.5)))
    shift, growth = _halves(graph, graph.add("Div", deltas, np.array(weights, np.float32)))
    centre = graph.add("Add", graph.add("Mul", shift, side), centre)
    growth = graph.add("Exp", graph.add("Min", growth, np.float32(MAX_SIZE_DELTA)))
    half = graph.add("Mul", graph.add("Mul", growth, side), np.float32(0.5))
    return graph.add("Concat", graph.add("Sub", centre, half), graph.add("Add", centre, half), axis=-1)


def _clip(graph, boxes, limit):
    """Return boxes clipped to 0..limit, where the shape of `limit` broadcasts to the boxes."""
    return graph.add("Min", graph.add("Max", boxes, np.float32(0)), limit)
