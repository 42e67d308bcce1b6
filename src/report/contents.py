"""The data for a report's scripts: the numbers of a whole evaluation, and the images of its gallery."""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from src.dataset.annotations import CocoDataset, Record
from src.evaluation.coco import KEYS, Evaluation
from src.evaluation.matching import Boxes
from src.report.error_analysis import CURVE_IOU, DETECTION_KINDS, TRUTH_OUTCOMES, precision_curves
from src.report.matched import Matched
from src.report.page import packed
from src.report.thumbnails import thumbnail

MAX_IMAGES = 300  # in a gallery
# Bin edges of the recall charts: square root of the box area in pixels (including COCO's edges), and box width / height.
SIDES = (16, 32, 64, 96, 128, 256, 512)
RATIOS = (0.25, 0.5, 0.8, 1.25, 2, 4)


def scored_records(dataset: CocoDataset, metrics: dict) -> list[Record]:
    """Return the records of the evaluated images, in the image order of `Boxes`."""
    skipped = set(metrics.get("skipped_image_ids", ()))
    return sorted((record for record in dataset.records if record.image_id not in skipped), key=lambda record: record.image_id)


def truth_contents(ground_truth: Boxes, num_images: int) -> dict:
    """Return all ground truth boxes without their coordinates, sorted by image."""
    width, height = np.maximum(ground_truth.xywh[:, 2:].T, 1e-9)
    return {"starts": packed(_starts(ground_truth, num_images), np.uint32),
            "category": packed(ground_truth.category, np.uint16),
            "crowd": packed(ground_truth.crowd, np.uint8),
            "side": packed(np.searchsorted(SIDES, np.sqrt(np.maximum(ground_truth.area, 0)), side="right"), np.uint8),
            "ratio": packed(np.searchsorted(RATIOS, width / height, side="right"), np.uint8),
            "sides": SIDES, "ratios": RATIOS, "outcomes": TRUTH_OUTCOMES}


def detector_contents(label: str, evaluation: Evaluation, matched: Matched, num_images: int) -> dict:
    """Return the numbers of one evaluation, and all its detections without their coordinates, sorted by image."""
    detections, starts = matched.detections, _starts(matched.ground_truth, num_images)
    first = starts[detections.image]
    return {"label": label,
            "metrics": {key: evaluation.metrics[key] for key in KEYS},
            "classes": _class_contents(evaluation, matched),
            "threshold": matched.threshold,
            "kinds": DETECTION_KINDS,
            "starts": packed(_starts(detections, num_images), np.uint32),
            "score": packed(detections.score, np.float32),
            "category": packed(detections.category, np.uint16),
            "kind": packed(matched.kinds, np.uint8),
            # Indices within the image, which are below 32,768.
            "partner": packed(np.where(matched.tide_match < 0, -1, matched.tide_match - first), np.int16),
            "place": packed(np.where(matched.confusion_match < 0, -1, matched.confusion_match - first), np.int16)}


def gallery_contents(records: Sequence[Record], chosen: np.ndarray, ground_truth: Boxes,
                     detections: Sequence[Boxes]) -> dict:
    """Return the images with the indices `chosen`, (c,) int, and the coordinates of their ground truth and detections."""
    shown = [records[number] for number in chosen]
    return {"images": [{"image": int(number), "id": record.image_id, "name": record.path.replace("\\", "/").rpartition("/")[2],
                        "width": record.width, "height": record.height, "jpeg": jpeg}
                       for number, record, jpeg in zip(chosen, shown, map(thumbnail, shown))],
            "boxes": [_places(boxes, chosen) for boxes in (ground_truth, *detections)]}


def most_expensive(costs: np.ndarray) -> np.ndarray:
    """Return the indices of the MAX_IMAGES images with the highest absolute costs, in descending order. The sort is stable."""
    return np.argsort(-np.abs(costs), kind="stable")[:MAX_IMAGES]


def _class_contents(evaluation, matched):
    """Return for each class, and last for all together: name, APs, precision at IoU 0.5 and 0.75, F1 and best threshold."""
    recalls, precision = precision_curves(evaluation.precision)
    known = precision[0, 0] > -1
    per_class = evaluation.metrics["per_class"]
    rows = [(name, per_class[name], precision[:, :, k]) for k, name in enumerate(evaluation.class_names)]
    mean = precision[:, :, known].mean(axis=2) if known.any() else np.full(precision.shape[:2], -1.0)
    rows.append(("all classes", evaluation.metrics["AP"], mean))
    return [{"name": name, "ap": ap, **{f"ap{iou * 100:.0f}": float(curve.mean()) for iou, curve in zip(CURVE_IOU, curves)},
             "precision": np.round(curves, 4).tolist() if curves[0, 0] > -1 else None,
             "f1": np.round(f1.f1, 4).tolist(), "best_f1": f1.best_f1,
             "best_score": f1.best_score if math.isfinite(f1.best_score) else None}
            for (name, ap, curves), f1 in zip(rows, matched.curves)]


def _starts(boxes, num_images):
    """Return the first row of each image's boxes and the total number of boxes, (num_images + 1,) int."""
    return np.searchsorted(boxes.image, np.arange(num_images + 1))


def _places(boxes, chosen):
    """Return the boxes of the chosen images, concatenated: [x, y, width, height] rounded to 0.1 pixels, float32."""
    rows = [np.arange(*np.searchsorted(boxes.image, (number, number + 1))) for number in chosen]
    return packed(np.round(boxes.xywh[np.concatenate([np.zeros(0, int), *rows])], 1), np.float32)
