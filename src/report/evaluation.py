"""The report of an evaluation, which links its numbers to the images behind them, and the data of its page."""
from __future__ import annotations

import base64
import logging
import os
from collections.abc import Sequence

import cv2
import numpy as np

from src.config import Config
from src.dataset.annotations import CocoDataset, Record
from src.dataset.image import UnreadableImageError, read_image
from src.dataset.resize import choose_canvas, fitted_size, scaling_of
from src.evaluation.coco import KEYS, Evaluation
from src.report.error_analysis import DETECTION_KINDS, TRUTH_OUTCOMES, Matched, classify, sort_by_image
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
IOUS = np.linspace(0.5, 0.95, 10)  # COCO's thresholds, among which a reader of the page chooses


def match_boxes(evaluation: Evaluation) -> list[Matched]:
    """Match the detections of an evaluation with its ground truth at each of IOUS."""
    boxes = sort_by_image(evaluation.ground_truth, evaluation.detections)
    return [classify(*boxes, iou) for iou in IOUS]


def write_evaluation_report(folder: str, evaluation: Evaluation, matched: list[Matched], dataset: CocoDataset, cfg: Config,
                            label: str = "") -> None:
    """Write <folder>/report.html, and create the folder if it does not exist.

    Unreadable images are listed without a picture.

    Args:
        folder: folder of the evaluation.
        evaluation: evaluation of `dataset`, with the metrics of `src.evaluation.evaluate.evaluate`.
        matched: the result of `match_boxes`.
        dataset: the data set whose images are shown.
        cfg: the configuration, for the boxes' sizes on the canvas and the anchors.
        label: path or name of the evaluated model, shown in the report.

    Raises:
        UserError: the file cannot be written, for example because the disk is full.
    """
    records, first = scored_records(dataset, evaluation.metrics), matched[0]
    contents = page_contents(records, dataset, [(label, evaluation, matched)], first.costs(len(records), first.threshold))
    contents["truth"].update(_anchor_contents(records, first.ground_truth, cfg))
    path = os.path.join(make_folder(folder), NAME)
    with writing_into(folder, "the report"):
        write_page(path, "evaluation.html.j2", f"Evaluation of {os.path.basename(label)}" if label else "Evaluation", contents)
    logger.info("the report is %s", path)


def scored_records(dataset: CocoDataset, metrics: dict) -> list[Record]:
    """Return the records of the evaluated images, in the image order of `Boxes`."""
    skipped = set(metrics.get("skipped_image_ids", ()))
    return sorted((record for record in dataset.records if record.image_id not in skipped), key=lambda record: record.image_id)


def page_contents(records: Sequence[Record], dataset: CocoDataset, detectors: list[tuple[str, Evaluation, list[Matched]]],
                  order: np.ndarray) -> dict:
    """Return the data of a page that shows one or more evaluations of the same images.

    Args:
        records: the evaluated images.
        dataset: their data set.
        detectors: label, evaluation and result of `match_boxes` of each evaluation.
        order: (len(records),) float. The gallery has the MAX_IMAGES images with the highest absolute values, in descending order.
    """
    lists = [detectors[0][2][0].ground_truth, *(matched[0].detections for *_, matched in detectors)]
    images = []
    for number in np.argsort(-np.abs(order), kind="stable")[:MAX_IMAGES].tolist():
        record = records[number]
        images.append({"image": number, "id": record.image_id, "name": record.path.replace("\\", "/").rpartition("/")[2],
                       "width": record.width, "height": record.height, "jpeg": thumbnail(record),
                       # [x, y, width, height] of its ground truth, and of its detections in each evaluation.
                       "boxes": [packed(np.round(boxes.xywh[boxes.image == number], 1), np.float32) for boxes in lists]})
    return {"names": detectors[0][1].class_names, "ious": np.round(IOUS, 2).tolist(), "images": len(records),
            "annotations": dataset.annotation_path,
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
    """Return the numbers of one evaluation, and all its detections without their coordinates, sorted by image.

    `levels` has all matches at the first of IOUS, and at each further one the rows that differ from the one before.
    """
    detections = matched[0].detections
    first = _starts(matched[0].ground_truth, num_images)[detections.image]
    before, levels = np.full((3, len(first)), -2), []
    for one in matched:
        # Matches are indices within the image, which are below 32,768.
        now = np.stack([one.kinds, *(np.where(rows < 0, -1, rows - first) for rows in (one.tide_match, one.confusion_match))])
        rows = np.flatnonzero((before != now).any(axis=0))
        columns = zip(("kind", "tide_match", "confusion_match"), now[:, rows], (np.uint8, np.int16, np.int16))
        levels.append({"rows": packed(rows, np.uint32), **{key: packed(values, dtype) for key, values, dtype in columns}})
        before = now
    return {"label": label, "metrics": {key: evaluation.metrics[key] for key in KEYS}, "levels": levels,
            "classes": _class_contents(evaluation), "threshold": matched[0].threshold, "kinds": DETECTION_KINDS,
            "starts": packed(_starts(detections, num_images), np.uint32),
            "score": packed(detections.score, np.float32),
            "category": packed(detections.category, np.uint16)}


def _class_contents(evaluation):
    """Return for each class, and last for all together: name, APs, and precision at each of IOUS."""
    precision = evaluation.precision[:, :, :, 0, -1]
    known = precision[0, 0] > -1
    mean = precision[:, :, known].mean(axis=2) if known.any() else np.full(precision.shape[:2], -1.0)
    return [{"name": name, "ap": float(curves.mean()), "ap50": float(curves[0].mean()), "ap75": float(curves[5].mean()),
             "precision": np.round(curves, 4).tolist() if curves[0, 0] > -1 else None}
            for name, curves in zip([*evaluation.class_names, "all classes"], [*np.moveaxis(precision, 2, 0), mean])]


def _anchor_contents(records, ground_truth, cfg):
    """Return the bin of each box's side, the square root of its area on the canvas, and the bins' edges and anchors.

    An edge is the geometric mean of two anchor sizes; outside the smallest and the largest size, the factor is 2.
    """
    generator, scaling = cfg.rpn_head.anchor_generator, scaling_of(cfg.data.eval_transforms.item_transforms)
    anchors = sorted((size, stride) for stride, sizes in zip(generator.strides, generator.anchor_sizes) for size in sizes)
    sizes = [size for size, _ in anchors]
    edges = np.round([sizes[0] / 2, *np.sqrt(np.multiply(sizes[1:], sizes[:-1])), sizes[-1] * 2], 1)
    areas = np.ones(len(records))
    for number, record in enumerate(records):
        size = record.height, record.width
        canvas = cfg.data.canvases[choose_canvas(size, cfg.data.canvases, scaling)]
        areas[number] = np.prod(fitted_size(size, canvas, scaling)) / np.prod(size)
    sides = np.sqrt(np.prod(ground_truth.xywh[:, 2:], axis=1) * areas[ground_truth.image])
    names = [f": anchor {size:g}, stride {stride}" for size, stride in anchors]
    return {"anchor": packed(np.searchsorted(edges, sides, side="right"), np.uint8), "anchors": edges.tolist(),
            "anchor_names": ["", *names, ""]}


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
