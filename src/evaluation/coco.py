"""COCO's detection metrics, computed by faster-coco-eval, a port of pycocotools to C++."""
from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

logger = logging.getLogger("faster_rcnn")

# In the order of pycocotools' summary.
KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class Boxes(NamedTuple):
    """Ground truth or detections of all images, with one row per box.

    Images and categories are stored as indices into their sorted ids, the order in which pycocotools processes them.
    """
    image: np.ndarray     # (n,) int64
    category: np.ndarray  # (n,) int64
    xywh: np.ndarray      # (n, 4) float64, pixels of the original image
    area: np.ndarray      # (n,) float64
    score: np.ndarray     # (n,) float64; zeros for ground truth
    crowd: np.ndarray     # (n,) bool; False for detections

    def select(self, rows: np.ndarray) -> Boxes:
        """Return the given rows, (m,) int, in that order."""
        return Boxes(*(column[rows] for column in self))


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
    ground_truth, detections, invalid = to_boxes(coco_json, results, image_ids, category_ids)
    if invalid:
        logger.warning("%d annotations without a valid box (four finite numbers, no negative side) are not scored", invalid)
    evaluation, lines = _run(ground_truth, detections, len(image_ids), len(category_ids))
    summary = [line for line in lines if line.startswith(" Average")][:len(KEYS)]
    logger.info("COCO numbers of %d images:\n%s", len(image_ids), "\n".join(summary))
    precision = evaluation.eval["precision"]
    names, indices = unique_names(names, category_ids), _index_by_id(category_ids)
    metrics: dict = {key: float(value) for key, value in zip(KEYS, evaluation.stats)}
    metrics["images"] = len(image_ids)
    metrics["per_class"] = {name: float(precision[:, :, indices[category], 0, -1].ravel().mean())
                            for name, category in zip(names, category_ids)}
    names_by_index = [name for _, name in sorted(zip(category_ids, names))]
    return Evaluation(metrics, results, ground_truth, detections, names_by_index, precision)


def values_without(evaluation: Evaluation, groups: np.ndarray) -> np.ndarray:
    """Return the metrics without each group of images, (G, 12 + 2 * K) float64; NaN for COCO's -1.

    The columns are KEYS, AP of each of K classes in the order of class_names, and AP50 of each class. `groups` (n,) int is the
    group of each image, from 0 to G - 1. Matches are computed once, as COCOeval has them for each class, area and image.
    """
    num_images, num_classes, rows = len(groups), len(evaluation.class_names), []
    coco, _ = _run(evaluation.ground_truth, evaluation.detections, num_images, num_classes, separate_eval=True)
    matches = np.array(coco._evalImgs_cpp, object).reshape(num_classes, -1, num_images)
    for group in range(groups.max() + 1):
        kept = np.flatnonzero(groups != group)
        coco._evalImgs_cpp, coco._paramsEval.imgIds = matches[:, :, kept].ravel().tolist(), kept.tolist()
        coco.accumulate()
        coco.summarize()
        precision = coco.eval["precision"][..., 0, -1]
        rows.append(np.concatenate([coco.stats[:len(KEYS)], precision.mean(axis=(0, 1)), precision[0].mean(axis=0)]))
    return np.where(np.less(rows, 0), np.nan, rows)


def _run(ground_truth, detections, num_images, num_categories, **options):
    """Return COCOeval's evaluation of boxes, and the lines that it prints."""
    lines: list[str] = []
    evaluation = COCOeval_faster(*(_to_coco(boxes, num_images, num_categories) for boxes in (ground_truth, detections)),
                                 iouType="bbox", print_function=lines.append, **options)
    evaluation.run()
    return evaluation, lines


def to_boxes(coco_json: dict, results: list[dict], image_ids: list, category_ids: list[int]) -> tuple[Boxes, Boxes, int]:
    """Return the ground truth, the detections, and the number of annotations ignored because their box is invalid. Arguments are
    as for `score`."""
    images, categories = _index_by_id(image_ids), _index_by_id(category_ids)
    annotations = [row for row in coco_json.get("annotations") or [] if row["image_id"] in images]
    valid = [row for row in annotations if _is_box(row.get("bbox"))]
    return (_boxes(valid, images, categories, detected=False), _boxes(results, images, categories, detected=True),
            len(annotations) - len(valid))


def _boxes(rows, images, categories, detected):
    """Return the rows of the given images and categories as `Boxes`."""
    rows = [row for row in rows if row["image_id"] in images and row["category_id"] in categories]
    area = [row["bbox"][2] * row["bbox"][3] if detected or not _is_finite(row.get("area")) else row["area"] for row in rows]
    return Boxes(image=np.array([images[row["image_id"]] for row in rows], np.int64),
                 category=np.array([categories[row["category_id"]] for row in rows], np.int64),
                 xywh=np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4),
                 area=np.array(area, np.float64),
                 score=np.array([row["score"] if detected else 0.0 for row in rows], np.float64),
                 crowd=np.array([not detected and bool(row.get("iscrowd")) for row in rows], bool))


def _to_coco(boxes, num_images, num_categories):
    """Return `Boxes` as a COCO data set, whose ids of images and categories are their indices."""
    rows = zip(*(column.tolist() for column in boxes))
    annotations = [{"id": number, "image_id": image, "category_id": category, "bbox": xywh, "area": area, "score": value,
                    "iscrowd": int(crowd)} for number, (image, category, xywh, area, value, crowd) in enumerate(rows, 1)]
    return COCO({"images": [{"id": i} for i in range(num_images)], "annotations": annotations,
                 "categories": [{"id": k} for k in range(num_categories)]})


def result_rows(image_id: int, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray,
                category_ids: Sequence[int]) -> list[dict]:
    """Return the detections of one image in COCO's result format: dicts with image_id, category_id, bbox [x, y, w, h] and score.

    Values are not rounded, because a rounded box could cross an IoU threshold, and rounded scores could tie.

    Args:
        image_id: id of the image.
        boxes: (n, 4) float32, xyxy in original pixels.
        scores: (n,) float32.
        labels: (n,) int.
        category_ids: COCO category ids by label.
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


def _index_by_id(ids):
    """Return {id: its index among the sorted ids}."""
    return {identifier: index for index, identifier in enumerate(sorted(set(ids)))}


def _is_finite(value):
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_box(box):
    """Return whether `box` is [x, y, w, h] with finite numbers, and w and h are not negative."""
    return isinstance(box, (list, tuple)) and len(box) == 4 and all(map(_is_finite, box)) and min(box[2:]) >= 0
