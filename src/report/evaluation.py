"""The report of an evaluation, which links its numbers to the images behind them, and the data of its page."""
from __future__ import annotations

import base64
import logging
import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from src.dataset.annotations import CocoDataset, Record
from src.dataset.image import UnreadableImageError, read_image
from src.evaluation.coco import KEYS, Boxes, Evaluation
from src.report.error_analysis import (
    CURVE_IOU,
    DETECTION_KINDS,
    TRUTH_OUTCOMES,
    F1Curve,
    classify,
    f1_curves,
    image_costs,
    match_any_class,
    precision_curves,
    sort_by_image,
)
from src.report.page import packed, write_page
from src.run.files import make_folder, writing_into
from src.visualization.images import fit

logger = logging.getLogger("faster_rcnn")

NAME = "report.html"
MAX_IMAGES = 300  # in a gallery
THUMBNAIL_SIDE, THUMBNAIL_QUALITY = 512, 80  # maximum length of the longer side in pixels; JPEG quality
# Bin edges of the recall charts: square root of the box area in pixels (including COCO's edges), and box width / height.
SIDES = (16, 32, 64, 96, 128, 256, 512)
RATIOS = (0.25, 0.5, 0.8, 1.25, 2, 4)


class Matched(NamedTuple):
    """Ground truth sorted by image, and detections sorted by image and descending score, with their matches."""
    ground_truth: Boxes
    detections: Boxes
    kinds: np.ndarray            # (n,) int, indices of DETECTION_KINDS
    tide_match: np.ndarray       # (n,) int, row of the ground truth box that explains the kind, or -1
    confusion_match: np.ndarray  # (n,) int, row of the ground truth box matched for the confusion matrix, or -1 (background)
    curves: list[F1Curve]        # for each class, then for all classes together

    @property
    def threshold(self) -> float:
        """Return the score threshold with the highest F1 over all classes, or 0 without detections."""
        best = self.curves[-1].best_score
        return best if math.isfinite(best) else 0.0

    def costs(self, num_images: int) -> np.ndarray:
        """Return `image_costs` at the best threshold, (num_images,) float64."""
        return image_costs(self.ground_truth, self.detections, self.kinds, self.tide_match, self.threshold, num_images)


def match_boxes(evaluation: Evaluation) -> Matched:
    """Match the detections of an evaluation with its ground truth."""
    ground_truth, detections = sort_by_image(evaluation.ground_truth, evaluation.detections)
    kinds, tide_match = classify(ground_truth, detections)
    return Matched(ground_truth, detections, kinds, tide_match, match_any_class(ground_truth, detections, kinds),
                   f1_curves(ground_truth, detections, kinds, len(evaluation.class_names)))


def write_evaluation_report(folder: str, evaluation: Evaluation, dataset: CocoDataset, label: str = "") -> None:
    """Write <folder>/report.html, and create the folder if it does not exist.

    Unreadable images are listed without a picture.

    Args:
        folder: folder of the evaluation.
        evaluation: evaluation of `dataset`, with the metrics of `src.evaluation.evaluate.evaluate`.
        dataset: the data set whose images are shown.
        label: path or name of the evaluated model, shown in the report.

    Raises:
        UserError: the file cannot be written, for example because the disk is full.
    """
    records, matched = scored_records(dataset, evaluation.metrics), match_boxes(evaluation)
    contents = page_contents(records, dataset, [(label, evaluation, matched)], matched.costs(len(records)))
    path = os.path.join(make_folder(folder), NAME)
    with writing_into(folder, "the report"):
        write_page(path, "evaluation.html.j2", f"Evaluation of {os.path.basename(label)}" if label else "Evaluation", contents)
    logger.info("the report is %s", path)


def scored_records(dataset: CocoDataset, metrics: dict) -> list[Record]:
    """Return the records of the evaluated images, in the image order of `Boxes`."""
    skipped = set(metrics.get("skipped_image_ids", ()))
    return sorted((record for record in dataset.records if record.image_id not in skipped), key=lambda record: record.image_id)


def page_contents(records: Sequence[Record], dataset: CocoDataset, detectors: list[tuple[str, Evaluation, Matched]],
                  order: np.ndarray) -> dict:
    """Return the data of a page that shows one or more evaluations of the same images.

    Args:
        records: the evaluated images.
        dataset: their data set.
        detectors: label, evaluation and matched boxes of each evaluation.
        order: (len(records),) float. The gallery has the MAX_IMAGES images with the highest absolute values, in descending order.
    """
    lists = [detectors[0][2].ground_truth, *(matched.detections for *_, matched in detectors)]
    images = []
    for number in np.argsort(-np.abs(order), kind="stable")[:MAX_IMAGES].tolist():
        record = records[number]
        images.append({"image": number, "id": record.image_id, "name": record.path.replace("\\", "/").rpartition("/")[2],
                       "width": record.width, "height": record.height, "jpeg": thumbnail(record),
                       # [x, y, width, height] of its ground truth, and of its detections in each evaluation.
                       "boxes": [packed(np.round(boxes.xywh[boxes.image == number], 1), np.float32) for boxes in lists]})
    return {"names": detectors[0][1].class_names, "images": len(records), "annotations": dataset.annotation_path,
            "skipped": len(dataset.records) - len(records), "truth": _truth_contents(lists[0], len(records)),
            "detectors": [_detector_contents(*detector, len(records)) for detector in detectors],
            "gallery": images}


def _truth_contents(ground_truth, num_images):
    """Return all ground truth boxes without their coordinates, sorted by image."""
    width, height = np.maximum(ground_truth.xywh[:, 2:].T, 1e-9)
    return {"starts": packed(_starts(ground_truth, num_images), np.uint32),
            "category": packed(ground_truth.category, np.uint16),
            "crowd": packed(ground_truth.crowd, np.uint8),
            "side": packed(np.searchsorted(SIDES, np.sqrt(np.maximum(ground_truth.area, 0)), side="right"), np.uint8),
            "ratio": packed(np.searchsorted(RATIOS, width / height, side="right"), np.uint8),
            "sides": SIDES, "ratios": RATIOS, "outcomes": TRUTH_OUTCOMES}


def _detector_contents(label, evaluation, matched, num_images):
    """Return the numbers of one evaluation, and all its detections without their coordinates, sorted by image."""
    detections = matched.detections
    first = _starts(matched.ground_truth, num_images)[detections.image]
    # Matches are indices within the image, which are below 32,768.
    tide_match, confusion_match = (packed(np.where(rows < 0, -1, rows - first), np.int16)
                                   for rows in (matched.tide_match, matched.confusion_match))
    return {"label": label, "metrics": {key: evaluation.metrics[key] for key in KEYS},
            "classes": _class_contents(evaluation, matched.curves), "threshold": matched.threshold, "kinds": DETECTION_KINDS,
            "starts": packed(_starts(detections, num_images), np.uint32),
            "score": packed(detections.score, np.float32),
            "category": packed(detections.category, np.uint16),
            "kind": packed(matched.kinds, np.uint8),
            "tide_match": tide_match, "confusion_match": confusion_match}


def _class_contents(evaluation, f1):
    """Return for each class, and last for all together: name, APs, precision at IoU 0.5 and 0.75, F1 and best threshold."""
    _, precision = precision_curves(evaluation.precision)
    known = precision[0, 0] > -1
    mean = precision[:, :, known].mean(axis=2) if known.any() else np.full(precision.shape[:2], -1.0)
    names, aps = [*evaluation.class_names, "all classes"], evaluation.metrics["per_class"]
    return [{"name": name, "ap": aps[name] if k < len(aps) else evaluation.metrics["AP"],
             **{f"ap{iou * 100:.0f}": float(curve.mean()) for iou, curve in zip(CURVE_IOU, curves)},
             "precision": np.round(curves, 4).tolist() if curves[0, 0] > -1 else None,
             "f1": np.round(one.f1, 4).tolist(), "best_f1": one.best_f1,
             "best_score": one.best_score if math.isfinite(one.best_score) else None}
            for k, (name, curves, one) in enumerate(zip(names, [*np.moveaxis(precision, 2, 0), mean], f1))]


def _starts(boxes, num_images):
    """Return the first row of each image's boxes and the total number of boxes, (num_images + 1,) int."""
    return np.searchsorted(boxes.image, np.arange(num_images + 1))


def thumbnail(record: Record) -> str | None:
    """Return the image of a record as base64 JPEG, or None if it cannot be read, which the evaluation has logged."""
    try:
        image = read_image(record.path, (record.height, record.width))
    except UnreadableImageError:
        return None
    if max(image.shape[:2]) > THUMBNAIL_SIDE:
        image, _ = fit(image, np.zeros((0, 4)), THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, THUMBNAIL_QUALITY])
    return base64.b64encode(data.tobytes()).decode("ascii")
