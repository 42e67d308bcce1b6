"""Builds the ONNX models of a detector: of the network alone, and of all steps from an image of any size to its detections.

MindSpore 2.10's exporter fails at the operator ResizeBilinearV2, or at ResizeNearestNeighborV2 if
backbone.fpn.upsample_mode is nearest. Therefore this package builds the graph from the network's weights.
"""
from __future__ import annotations

import functools
import hashlib
import json

import numpy as np
import onnx

from src import __version__
from src.checkpoint import FOR_AN_IMAGE
from src.config import Config
from src.dataset.resize import scaling_of
from src.evaluation.detections import MIN_SIDE
from src.export.onnx_graph import Graph
from src.export.onnx_network import network_outputs, outputs_of_image
from src.export.onnx_resize import fitted_sizes, largest, on_canvas
from src.models.faster_rcnn import FasterRCNN, InferenceForward


def network_model(forward: InferenceForward, batch: int, canvas: tuple[int, int]) -> onnx.ModelProto:
    """Return the ONNX model of an `InferenceForward` of plain operators, for batches of images on the canvas (H, W).

    Inputs, as the data loader prepares them: image (B, H, W, 3) uint8 RGB and valid_size (B, 2) float32. Outputs, for every
    proposal and class: boxes (B, R, K, 4) float32 xyxy in pixels of the canvas and scores (B, R, K) float32, which
    `src.evaluation.detections` converts to detections. For errors see `network_outputs`.
    """
    op, shape = Graph(), (batch, *outputs_of_image(forward))
    boxes, scores = network_outputs(op, forward, "image", "valid_size", (batch, *canvas))
    return op.model({"image": (np.uint8, (batch, *canvas, 3)), "valid_size": (np.float32, (batch, 2))},
                    {"boxes": (boxes, np.float32, (*shape, 4)), "scores": (scores, np.float32, shape)})


def detector_model(network: FasterRCNN, cfg: Config, names: list[str]) -> onnx.ModelProto:
    """Return an ONNX model that does the same as `src.export.detector.detect`, for images of any size.

    Inputs: image (h, w, 3) uint8 RGB, and the optional score_threshold and iou_threshold, (1,) float32, with the defaults of
    cfg.infer. Outputs: boxes (N, 4) float32 xyxy in pixels of the image, scores (N,) float32 and labels (N,) int64, by
    descending score. If the batch size B (cfg.batch_size) is above 1, image is (B, h, w, 3), and a further output images
    (N,) int64 contains the image index of each detection, in ascending order.

    `network` consists of plain operators; `names` are the class names by label. For errors see `network_outputs`.
    """
    op, batch = Graph(), cfg.batch_size
    forwards = {canvas: InferenceForward(network, cfg, canvas).set_train(False) for canvas in cfg.data.canvases}
    rows, classes = outputs_of_image(next(iter(forwards.values())))
    image = "image" if batch > 1 else op.Unsqueeze("image", np.array([0]))
    size = op.Gather(op.Shape(image), np.array([1, 2]))
    boxes, scores, scale = _on_best_canvas(op, forwards, cfg, image, size, (batch, rows, classes))
    place, scores = _best(op, boxes, scores, (batch, rows, classes), cfg.infer.max_box_num)
    # Columns of `place`: index of the image, and index of the (proposal, class) pair.
    number, pair = (op.reshape(part, -1) for part in op.Split(place, np.array([1, 1]), axis=1, outputs=2))
    chosen = op.GatherND(op.reshape(boxes, batch, rows * classes, 4), place)
    limit, scale = (op.Gather(sides, np.array([1, 0, 1, 0])) for sides in (op.cast(size, np.float32), scale))
    chosen = op.Min(op.Max(op.Div(chosen, scale), np.float32(0)), limit)
    results = {"boxes": (chosen, np.float32, ("N", 4)), "scores": (scores, np.float32, ("N",)),
               "labels": (op.Mod(pair, np.int64(classes)), np.int64, ("N",))}
    if batch > 1:
        results["images"] = number, np.int64, ("N",)
    return op.model({"image": (np.uint8, (batch, "h", "w", 3)[batch == 1:])}, results,
                    {"score_threshold": np.array([cfg.infer.conf_threshold], np.float32),
                     "iou_threshold": np.array([cfg.infer.nms_threshold], np.float32)}, metadata(cfg, names))


def metadata(cfg: Config, names: list[str]) -> dict[str, str]:
    """Return the metadata of a file: class names by label and canvases (height, width) as JSON, a digest of the settings that
    determine the detections, and the version of this project."""
    settings = json.dumps(cfg.model_dump(include={**FOR_AN_IMAGE, "infer": True}), sort_keys=True)
    return {"names": json.dumps(names, ensure_ascii=False), "canvases": json.dumps(cfg.data.canvases),
            "config": hashlib.sha256(settings.encode()).hexdigest(), "version": __version__}


def _on_best_canvas(op, forwards, cfg, image, size, shape):
    """Return boxes (B, R, K, 4) in pixels of the canvas with the largest scale, scores (B, R, K), and scale (2,) float32, canvas
    pixels per image pixel along y and x. `shape` is (B, R, K)."""
    batch, canvases, scaling = shape[0], tuple(forwards), scaling_of(cfg.data.eval_transforms.item_transforms)
    sizes = fitted_sizes(op, size, canvases, scaling)
    number = largest(op, sizes)
    scaled = op.Gather(sizes, number)
    sides = size, scaled, size, scaled
    if scaling.exact_factor:  # use the axis that fills the canvas
        limits = op.Gather(np.array(canvases), number)
        shares = op.Div(op.cast(size, np.float32), op.cast(limits, np.float32))
        axis = op.Expand(op.ArgMax(shares, axis=0), np.array([2]))
        sides = size, scaled, op.Gather(size, axis), op.Gather(limits, axis)
    valid_size = op.Expand(op.cast(scaled, np.float32), np.array([batch, 2]))

    def outputs_on(canvas):
        placed = op.reshape(on_canvas(op, image, sides, canvas, scaling.shrink), batch, *canvas, 3)
        return network_outputs(op, forwards[canvas], placed, valid_size, (batch, *canvas))

    boxes, scores = op.choose(number, [functools.partial(outputs_on, canvas) for canvas in canvases],
                              [(np.float32, (*shape, 4)), (np.float32, shape)])
    return boxes, scores, op.Div(op.cast(sides[3], np.float32), op.cast(sides[2], np.float32))


def _best(op, boxes, scores, shape, max_box_num):
    """Select detections as `src.evaluation.detections.select_detections` does, at most `max_box_num` per image if it is not None.

    `shape` is (B, R, K), the shape of scores, and boxes are (B, R, K, 4). Return place (N, 2) int64, the image index and the
    index of the (proposal, class) pair among all R * K, and scores (N,).
    """
    batch, rows, classes = shape
    low, high = op.Split(boxes, np.array([2, 2]), axis=3, outputs=2)
    # A comparison with NaN is false, so boxes with a NaN coordinate are dropped.
    large = op.cast(op.GreaterOrEqual(op.Sub(high, low), np.float32(MIN_SIDE)), np.int32)
    scores = op.Where(op.Equal(op.ReduceMin(large, axes=[3], keepdims=0), np.int32(1)), scores, np.float32(0))
    # Boxes differ by class, so each (image, class) pair is treated as one batch element of the operator.
    by_class = op.reshape(op.Transpose(scores, perm=[0, 2, 1]), batch * classes, 1, rows)
    kept = op.NonMaxSuppression(op.reshape(op.Transpose(boxes, perm=[0, 2, 1, 3]), -1, rows, 4), by_class, np.array([rows]),
                                "iou_threshold", "score_threshold")
    flat = op.ScatterND(np.zeros((batch * classes, 1, rows), np.float32), kept, op.GatherND(by_class, kept))
    # Restore the order of the proposals, so that ties take the first.
    flat = op.reshape(op.Transpose(op.reshape(flat, batch, classes, rows), perm=[0, 2, 1]), batch, -1)
    most = min(max_box_num or rows * classes, rows * classes)
    best, pairs = op.TopK(flat, np.array([most]), axis=1, outputs=2)
    there = op.Transpose(op.NonZero(best), perm=[1, 0])
    numbers, _ = op.Split(there, np.array([1, 1]), axis=1, outputs=2)
    place = op.Concat(numbers, op.Unsqueeze(op.GatherND(pairs, there), np.array([1])), axis=1)
    return place, op.GatherND(best, there)
