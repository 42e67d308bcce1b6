"""Exports complete detectors as ONNX files, and compares their detections with infer.py's."""
from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from pycocotools import mask

from src.detector import Predictor
from src.errors import UserError
from src.models.faster_rcnn import FasterRCNN, InferenceForward

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
# The settings that, with the weights, determine the detections.
DECISIVE: dict = {"net": True, "backbone": True, "rpn_head": {"anchor_generator", "test_proposal"}, "bbox_head": True,
                  "infer": True, "data": {"target_size", "eval_transforms"}}
CORNER_TOLERANCE = 0.01  # in pixels, for boxes without area, which have no IoU
# Scale factors for the enlarged and the reduced copy of the first image.
LARGE, SMALL = 2.5, 0.4

Detections = tuple[np.ndarray, np.ndarray, np.ndarray]  # boxes (n, 4), scores (n,) and labels (n,) of an image


class Tolerance(NamedTuple):
    """Allowed differences between two detectors.

    Attributes:
        min_iou: lowest IoU of counterparts, exclusive.
        score: largest difference of scores of counterparts.
        min_share: share of the detections that must have a counterpart.
    """
    min_iou: float
    score: float
    min_share: float


FINE = Tolerance(0.99, 1e-3, 0.99)
ROUGH = Tolerance(0.7, 0.2, 0.9)  # for int8, whose detections differ, but must still be similar


class DetectionAgreement(NamedTuple):
    """The number of detections of two detectors that have a counterpart.

    Attributes:
        found: number of detections of both detectors that must have a counterpart.
        alone: number of these detections without a counterpart.
        score_difference: largest score difference of two counterparts.
    """
    found: int
    alone: int
    score_difference: float

    def __str__(self):
        return (f"{self.found - self.alone} of {self.found} detections, of both sides, have a counterpart on the other, with "
                f"scores that differ by up to {self.score_difference:.2g}")


def write(path: str, network: FasterRCNN, cfg, names: list[str]) -> None:
    """Write a network of plain operators to a file, see `src.export.onnx_whole.whole_model`."""
    from src.export.onnx_whole import whole_model  # imported here because it needs the package onnx
    forwards = {canvas: InferenceForward(network, cfg, canvas).set_train(False) for canvas in cfg.data.canvases}
    model = whole_model(forwards, cfg, metadata(cfg, names))
    Path(path).write_bytes(model.SerializeToString())


def metadata(cfg, names: list[str]) -> dict[str, str]:
    """Return the metadata of a file: class names by label and canvases (height, width) as JSON, a digest of the settings that
    determine the detections, and the version of this project."""
    settings = json.dumps(cfg.model_dump(include=DECISIVE), sort_keys=True)
    found = re.search(r'^version = "(.*)"$', PYPROJECT.read_text(encoding="utf-8"), re.MULTILINE)
    return {"names": json.dumps(names, ensure_ascii=False), "canvases": json.dumps(cfg.data.canvases),
            "config": hashlib.sha256(settings.encode()).hexdigest(), "version": found[1] if found else "unknown"}


class FileDetector:
    """Runs an exported file with ONNX Runtime on the CPU.

    Args:
        path: path of the file.
        batch: batch size B of the file.
    """

    def __init__(self, path: str, batch: int):
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # hide the warning that an input has a default
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.batch = batch

    def __call__(self, images: np.ndarray, threshold: float) -> list[Detections]:
        """Return the detections with scores above the threshold for each image of (B, h, w, 3) uint8 RGB."""
        image = images if self.batch > 1 else images[0]
        outputs: Any = self.session.run(None, {"image": image, "score_threshold": np.array([threshold], np.float32)})
        boxes, scores, labels, *others = outputs
        numbers = others[0] if others else np.zeros(len(boxes), np.int64)
        return [(boxes[numbers == row], scores[numbers == row], labels[numbers == row]) for row in range(self.batch)]


def of_several_sizes(images: list[np.ndarray], batch: int) -> list[np.ndarray]:
    """Return a batch (B, h, w, 3) for each image, and for a rotated, an enlarged and a reduced copy of the first image. A batch
    contains one image and its mirrored and flipped copies."""
    first = images[0]
    sizes = [np.rot90(first), *(cv2.resize(first, None, fx=factor, fy=factor) for factor in (LARGE, SMALL)
                                if factor * min(first.shape[:2]) >= 1)]
    turns = (slice(None), slice(None)), (slice(None), slice(None, None, -1)), (slice(None, None, -1), slice(None))
    return [np.stack([image[turns[row % len(turns)]] for row in range(batch)]) for image in [*images, *sizes]]


def compare(detect: FileDetector, predictor: Predictor, batches: list[np.ndarray],
            tolerance: Tolerance = FINE) -> DetectionAgreement:
    """Compare the detections of an exported file with the network's detections.

    Args:
        detect: detector of the file.
        predictor: predictor of the network; its configuration provides the thresholds.
        batches: batches of images, (B, h, w, 3) uint8 each.
        tolerance: maximum differences of counterparts.
    """
    infer, found, alone, worst = predictor.cfg.infer, 0, 0, 0.0
    for images in batches:
        for own, image in zip(detect(images, infer.conf_threshold), images):
            other = predictor.detect(np.ascontiguousarray(image))[:3]
            for first, second in ((own, other), (other, own)):
                must, differences = _counterparts(first, second, infer, tolerance)
                found, alone = found + len(must), alone + int(np.isnan(differences).sum())
                worst = max([worst, *differences[~np.isnan(differences)].tolist()])
    return DetectionAgreement(found, alone, worst)


def quantize(path: str, batches: list[np.ndarray]) -> None:
    """Quantise a file in place: convolutions and dense layers compute in int8, by ONNX Runtime's static quantisation.

    Weights are scaled per channel, to 7 bits, because 8-bit products saturate on x86 processors without VNNI. The range of each
    activation is measured on the batches (B, h, w, 3) uint8.
    """
    import onnx
    import onnxruntime
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        inputs = iter(batches)

        def get_next(self):
            images = next(self.inputs, None)
            return images if images is None else {"image": images if len(images) > 1 else images[0]}

    model = onnx.load(path)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    # Mark the graph as preprocessed to avoid a warning. It needs no preprocessing.
    onnx.helper.set_model_props(model, {**kept, "onnx.quant.pre_process": "onnxruntime.quant"})
    onnxruntime.set_default_logger_severity(3)  # for the calibration's sessions, see FileDetector
    quantization.quantize_static(model, path, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
                                 op_types_to_quantize=["Conv", "Gemm"], activation_type=quantization.QuantType.QUInt8,
                                 weight_type=quantization.QuantType.QInt8, reduce_range=True)
    onnxruntime.set_default_logger_severity(2)


def require(path: str, result: DetectionAgreement, tolerance: Tolerance = FINE) -> None:
    """Raise a UserError unless the share `tolerance.min_share` of the detections has counterparts."""
    if result.alone > (1 - tolerance.min_share) * result.found:
        raise UserError(f"{path} is not written, as it would not find what the network does: {result}, but "
                        f"{tolerance.min_share:.0%} must have one (IoU above {tolerance.min_iou}, score within "
                        f"{tolerance.score}); try other images with --image, and report it if that fails as well.")


def _counterparts(first, second, infer, tolerance):
    """Return the rows of `first` that must have a counterpart in `second`, and their score differences (NaN: no counterpart).

    Rounding may move a score across the threshold, or across the last score of a full list. Such detections need no counterpart.
    """
    boxes, scores, labels = first
    lowest = max([infer.conf_threshold, *(part[1].min() for part in (first, second) if 0 < len(part[1]) == infer.max_box_num)])
    must = np.flatnonzero(scores > lowest + tolerance.score)
    if not len(must) or not len(second[0]):
        return must, np.full(len(must), np.nan)
    same = np.abs(boxes[must, None] - second[0]).max(axis=2) <= CORNER_TOLERANCE
    differences = np.abs(scores[must, None] - second[1])
    overlap = same | (_ious(boxes[must], second[0]) > tolerance.min_iou)
    fits = overlap & (differences <= tolerance.score) & (labels[must, None] == second[2])
    return must, np.where(fits.any(axis=1), np.where(fits, differences, np.inf).min(axis=1), np.nan)


def _ious(boxes, others):
    """Return the IoUs (n, m) of boxes (n, 4) and (m, 4) xyxy."""
    first, second = (np.concatenate((part[:, :2], part[:, 2:] - part[:, :2]), axis=1).astype(np.float64)
                     for part in (boxes, others))
    return mask.iou(first, second, np.zeros(len(second), np.uint8))
