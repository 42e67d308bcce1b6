"""COCO's detection metrics, as pycocotools computes them."""
from __future__ import annotations

import contextlib
import io
import logging
from collections import Counter
from typing import NamedTuple

import numpy as np
from pycocotools.cocoeval import COCOeval

from src.evaluation.boxes import Boxes, index_by_id, to_boxes
from src.evaluation.matching import precision_and_recall

logger = logging.getLogger("faster_rcnn")

# In the order of pycocotools' summary.
KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class Evaluation(NamedTuple):
    """The result of `score`."""
    metrics: dict            # KEYS (floats), `images` (number of images) and `per_class` {name: AP}
    results: list[dict]      # the detections in COCO's result format
    ground_truth: Boxes
    detections: Boxes
    class_names: list[str]   # by ascending category id, the category order of Boxes and precision
    precision: np.ndarray    # (T, R, K, A, M) float64, COCOeval's eval["precision"]


def score(coco_json: dict, results: list[dict], image_ids: list, names: list[str], category_ids: list[int]) -> Evaluation:
    """Evaluate detections against COCO ground truth, and log COCO's twelve lines.

    As in COCO, a metric is -1 if the ground truth has no box of its kind: without small boxes, APs and ARs are -1. A metric is 0
    if no box of its kind was found, even if `results` is empty. In the ground truth, `iscrowd` (0), `area` (width times height)
    and `id` are optional. Annotations are ignored if their box is missing, negative or not finite, and a warning gives their
    number. Empty boxes are kept, as in pycocotools.

    Args:
        coco_json: parsed annotation file. It is not changed.
        results: list of dicts in COCO's result format: image_id, category_id, bbox [x, y, w, h] in original pixels and
            score.
        image_ids: ids of the images to evaluate.
        names: class names by label. In `per_class`, a name shared by several categories becomes "name (category id)".
        category_ids: COCO category ids by label.
    """
    evaluation = COCOeval(iouType="bbox")
    ground_truth, detections, invalid = to_boxes(coco_json, results, image_ids, category_ids)
    if invalid:
        logger.warning("%d annotations without a valid box (four finite numbers, no negative side) are not scored", invalid)
    indices = index_by_id(category_ids)
    precision, recall = precision_and_recall(ground_truth, detections, len(indices), evaluation.params)
    evaluation.eval = {"precision": precision, "recall": recall}
    with contextlib.redirect_stdout(io.StringIO()) as summary:
        evaluation.summarize()
    logger.info("COCO numbers of %d images:\n%s", len(image_ids), summary.getvalue().rstrip())
    names = unique_names(names, category_ids)
    metrics: dict = {key: float(value) for key, value in zip(KEYS, evaluation.stats)}
    metrics["images"] = len(image_ids)
    metrics["per_class"] = {name: _average_precision(precision[:, :, indices[category], 0, -1])
                            for name, category in zip(names, category_ids)}
    names_by_index = [name for _, name in sorted(zip(category_ids, names))]
    return Evaluation(metrics, results, ground_truth, detections, names_by_index, precision)


def result_rows(image_id, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, category_ids) -> list[dict]:
    """Return the detections of one image in COCO's result format.

    Values are not rounded, because a rounded box could cross an IoU threshold, and rounded scores could tie.

    Args:
        image_id: id of the image, an int in COCO's format.
        boxes: (n, 4) float32, xyxy in original pixels.
        scores: (n,) float32.
        labels: (n,) int.
        category_ids: COCO category ids by label.

    Returns:
        n dicts with image_id, category_id, bbox [x, y, w, h] and score.
    """
    xywh = boxes.astype(np.float64)
    xywh[:, 2:] -= xywh[:, :2]
    rows = zip(labels.tolist(), xywh.tolist(), scores.tolist())
    return [{"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": value}
            for label, box, value in rows]


def unique_names(names: list[str], category_ids: list[int]) -> list[str]:
    """Return a unique name for each label: "name (category id)" if several classes share a name."""
    uses = Counter(names)
    return [name if uses[name] == 1 else f"{name} ({category})" for name, category in zip(names, category_ids)]


def _average_precision(precision):
    """Return the mean of one class's precision over all thresholds, or -1 for a class without ground truth."""
    values = precision[precision > -1]
    return float(values.mean()) if values.size else -1.0
