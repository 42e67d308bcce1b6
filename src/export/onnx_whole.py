"""Exports a complete detector as one ONNX file: from an image of any size to its detections."""
from __future__ import annotations

import numpy as np
import onnx

from src.dataset.resize import scaling_of
from src.evaluation.detections import MIN_SIDE
from src.export.onnx_detector import network_outputs, outputs_of_image
from src.export.onnx_graph import Graph
from src.export.onnx_resize import fitted_sizes, largest, on_canvas
from src.models.faster_rcnn import InferenceForward

SCORE_THRESHOLD, IOU_THRESHOLD = "score_threshold", "iou_threshold"  # optional inputs


def whole_model(forwards: dict[tuple[int, int], InferenceForward], cfg, metadata: dict[str, str]) -> onnx.ModelProto:
    """Return an ONNX model that does the same as `src.detector.Predictor.detect`, for images of any size.

    Inputs: image (h, w, 3) uint8 RGB, and the optional score_threshold and iou_threshold, (1,) float32, with the defaults of
    cfg.infer. Outputs: boxes (N, 4) float32 xyxy in pixels of the image, scores (N,) float32 and labels (N,) int64, by
    descending score. If the batch size B (cfg.batch_size) is above 1, image is (B, h, w, 3), and a further output images
    (N,) int64 contains the image index of each detection, in ascending order.

    Args:
        forwards: {canvas (H, W): InferenceForward of plain operators}, all with the same network.
        cfg: the configuration.
        metadata: strings stored in the model.

    Raises:
        UserError: the backbone is not one of mindcv's ResNets.
    """
    graph, batch, canvases = Graph(), cfg.batch_size, tuple(forwards)
    rows, classes = outputs_of_image(forwards[canvases[0]])
    image = "image" if batch > 1 else graph.add("Unsqueeze", "image", np.array([0]))
    size = graph.add("Gather", graph.add("Shape", image), np.array([1, 2]))
    boxes, scores, scale = _on_best_canvas(graph, forwards, cfg, image, size)
    place, scores = _best(graph, boxes, scores, (batch, rows, classes), cfg.infer.max_box_num)
    # Columns of `place`: index of the image, and index of the (proposal, class) pair.
    number, pair = (graph.reshape(part, -1) for part in graph.add("Split", place, np.array([1, 1]), axis=1, outputs=2))
    chosen = graph.add("GatherND", graph.reshape(boxes, batch, rows * classes, 4), place)
    limit, scale = (graph.add("Gather", sides, np.array([1, 0, 1, 0])) for sides in (graph.cast(size, np.float32), scale))
    chosen = graph.add("Min", graph.add("Max", graph.add("Div", chosen, scale), np.float32(0)), limit)
    results = {"boxes": (chosen, np.float32, ("N", 4)), "scores": (scores, np.float32, ("N",)),
               "labels": (graph.add("Mod", pair, np.int64(classes)), np.int64, ("N",))}
    if batch > 1:
        results["images"] = number, np.int64, ("N",)
    for name, (tensor, _, _) in results.items():
        graph.rename(tensor, name)
    model = graph.model({"image": (np.uint8, (batch, "h", "w", 3)[batch == 1:])},
                        {name: (kind, shape) for name, (_, kind, shape) in results.items()},
                        {SCORE_THRESHOLD: np.array([cfg.infer.conf_threshold], np.float32),
                         IOU_THRESHOLD: np.array([cfg.infer.nms_threshold], np.float32)})
    onnx.helper.set_model_props(model, metadata)
    return model


def _on_best_canvas(graph, forwards, cfg, image, size):
    """Return boxes (B, R, K, 4) in pixels of the canvas with the largest scale, scores (B, R, K), and scale (2,) float32, canvas
    pixels per image pixel along y and x."""
    transforms, batch, canvases = cfg.data.eval_transforms.item_transforms, cfg.batch_size, tuple(forwards)
    scaling = scaling_of(transforms)
    sizes = fitted_sizes(graph, size, canvases, scaling)
    number = largest(graph, sizes)
    scaled = graph.add("Gather", sizes, number)
    sides = size, scaled, size, scaled
    if scaling.exact_factor:  # use the axis that fills the canvas
        limits = graph.add("Gather", np.array(canvases), number)
        shares = graph.add("Div", graph.cast(size, np.float32), graph.cast(limits, np.float32))
        axis = graph.add("Expand", graph.add("ArgMax", shares, axis=0), np.array([2]))
        sides = size, scaled, graph.add("Gather", size, axis), graph.add("Gather", limits, axis)
    valid_size = graph.add("Expand", graph.cast(scaled, np.float32), np.array([batch, 2]))

    def on(canvas):
        def outputs(branch):
            placed = branch.reshape(on_canvas(branch, image, sides, canvas, scaling.shrink), batch, *canvas, 3)
            return network_outputs(branch, forwards[canvas], placed, valid_size, (batch, *canvas))
        return outputs

    shape = (batch, *outputs_of_image(forwards[canvases[0]]))
    boxes, scores = graph.choose(number, [on(canvas) for canvas in canvases], [(np.float32, (*shape, 4)), (np.float32, shape)])
    return boxes, scores, graph.add("Div", graph.cast(sides[3], np.float32), graph.cast(sides[2], np.float32))


def _best(graph, boxes, scores, shape, max_box_num):
    """Select detections as `src.evaluation.detections.select_detections` does. Return place (N, 2) int64, the image index and the
    index of the (proposal, class) pair among all R * K, and scores (N,).

    Args:
        boxes: (B, R, K, 4).
        scores: (B, R, K).
        shape: (B, R, K).
        max_box_num: maximum number of detections per image, or None.
    """
    batch, rows, classes = shape
    low, high = graph.add("Split", boxes, np.array([2, 2]), axis=3, outputs=2)
    # A comparison with NaN is false, so boxes with a NaN coordinate are dropped.
    large = graph.cast(graph.add("GreaterOrEqual", graph.add("Sub", high, low), np.float32(MIN_SIDE)), np.int32)
    scores = graph.add("Where", graph.add("Equal", graph.add("ReduceMin", large, axes=[3], keepdims=0), np.int32(1)), scores,
                       np.float32(0))
    # Boxes differ by class, so each (image, class) pair is treated as one batch element of the operator.
    by_class = graph.reshape(graph.add("Transpose", scores, perm=[0, 2, 1]), batch * classes, 1, rows)
    kept = graph.add("NonMaxSuppression", graph.reshape(graph.add("Transpose", boxes, perm=[0, 2, 1, 3]), -1, rows, 4), by_class,
                     np.array([rows]), IOU_THRESHOLD, SCORE_THRESHOLD)
    flat = graph.add("ScatterND", np.zeros((batch * classes, 1, rows), np.float32), kept, graph.add("GatherND", by_class, kept))
    # Restore the order of the proposals, so that ties take the first.
    flat = graph.reshape(graph.add("Transpose", graph.reshape(flat, batch, classes, rows), perm=[0, 2, 1]), batch, -1)
    most = min(max_box_num or rows * classes, rows * classes)
    best, pairs = graph.add("TopK", flat, np.array([most]), axis=1, outputs=2)
    there = graph.add("Transpose", graph.add("NonZero", best), perm=[1, 0])
    numbers, _ = graph.add("Split", there, np.array([1, 1]), axis=1, outputs=2)
    place = graph.add("Concat", numbers, graph.add("Unsqueeze", graph.add("GatherND", pairs, there), np.array([1])), axis=1)
    return place, graph.add("GatherND", best, there)
