"""The COCO detection numbers, as pycocotools computes them."""
import contextlib
import io
import logging
import math
from collections import Counter

import numpy as np
from pycocotools.cocoeval import COCOeval

from src.evaluation.matching import Boxes, precision_and_recall

logger = logging.getLogger("faster_rcnn")

# In the order in which pycocotools' summary gives them.
KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def score(coco_json, results, image_ids, names, category_ids):
    """Score detections against COCO ground truth and log COCO's twelve lines.

    A number is -1 where the ground truth holds nothing of its kind (no small box: APs and ARs are -1), which is COCO's
    own convention; it is 0 where there is something to find and nothing was found, also when `results` is empty.
    Ground truth may lack `iscrowd` (0), `area` (width times height) and `id`; annotations whose box is negative, not
    finite or no box at all are left out, and a warning says how many. Empty boxes stay, as pycocotools has it.

    Args:
        coco_json: parsed annotation file; not changed.
        results: list of dicts in COCO's result format: image_id, category_id, bbox [x, y, w, h] in original pixels,
            score.
        image_ids: ids of the images that count.
        names, category_ids: class names and COCO category ids, by label.

    Returns:
        dict: KEYS (floats), `images` (how many counted) and `per_class` {name: AP}; a name that stands for several
        categories becomes "name (category id)".
    """
    evaluation = COCOeval(iouType="bbox")
    truth, found, bad = boxes_of(coco_json, results, image_ids, category_ids)
    if bad:
        logger.warning("%d annotations without a valid box (four finite numbers, no negative side) are not scored", bad)
    precision, recall = precision_and_recall(truth, found, len(set(category_ids)), evaluation.params)
    evaluation.eval = {"precision": precision, "recall": recall}
    with contextlib.redirect_stdout(io.StringIO()) as summary:
        evaluation.summarize()
    logger.info("COCO numbers of %d images:\n%s", len(image_ids), summary.getvalue().rstrip())
    metrics = {key: float(value) for key, value in zip(KEYS, evaluation.stats)}
    metrics["images"] = len(image_ids)
    metrics["per_class"] = _per_class(precision, names, category_ids)
    return metrics


def boxes_of(coco_json, results, image_ids, category_ids):
    """Ground truth and detections of the given images and categories, for `score`'s arguments.

    Returns:
        (truth, found, bad): Boxes, Boxes, and the number of annotations that are left out as their box is none.
    """
    images, categories = _places(image_ids), _places(category_ids)
    truth, bad = _ground_truth(coco_json, images, categories)
    return truth, _detections(results, images, categories), bad


def class_names(names, category_ids):
    """By label, a name for each class that is its alone: "name (category id)" where several share a name."""
    uses = Counter(names)
    return [name if uses[name] == 1 else f"{name} ({category})" for name, category in zip(names, category_ids)]


def result_rows(image_id, boxes, scores, labels, category_ids):
    """The detections of one image in COCO's result format.

    Nothing is rounded: a rounded box could cross an IoU threshold, and rounded scores could tie.

    Args:
        image_id: int. boxes: (n, 4) float32, xyxy original pixels. scores: (n,) float32. labels: (n,) int.
        category_ids: COCO category ids by label.

    Returns:
        list of n dicts: image_id, category_id, bbox [x, y, w, h], score.
    """
    xywh = boxes.astype(np.float64)
    xywh[:, 2:] -= xywh[:, :2]
    rows = zip(labels.tolist(), xywh.tolist(), scores.tolist())
    return [{"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": value}
            for label, box, value in rows]


def _places(ids):
    """{id: its place in rising order}, the order in which pycocotools goes through images and categories."""
    return {identifier: place for place, identifier in enumerate(sorted(set(ids)))}


def _ground_truth(coco_json, images, categories):
    """The annotations of the given images and categories {id: place}, as Boxes, and how many have no valid box."""
    rows, bad = [], 0
    for annotation in coco_json.get("annotations") or []:
        if annotation["image_id"] not in images:
            continue
        if not _is_box(annotation.get("bbox")):
            bad += 1
        elif annotation["category_id"] in categories:
            rows.append(annotation)
    image, category, xywh = _columns(rows, images, categories)
    area = np.array([row["area"] if _is_finite(row.get("area")) else np.nan for row in rows], np.float64)
    return Boxes(image, category, xywh, np.where(np.isnan(area), xywh[:, 2] * xywh[:, 3], area),
                 score=np.zeros(len(rows)), crowd=np.array([bool(row.get("iscrowd")) for row in rows], bool)), bad


def _detections(results, images, categories):
    """The results of the given images and categories {id: place}, as Boxes."""
    rows = [row for row in results if row["image_id"] in images and row["category_id"] in categories]
    image, category, xywh = _columns(rows, images, categories)
    return Boxes(image, category, xywh, xywh[:, 2] * xywh[:, 3],
                 score=np.array([row["score"] for row in rows], np.float64), crowd=np.zeros(len(rows), bool))


def _columns(rows, images, categories):
    """Places of image (n,) and category (n,), boxes (n, 4)."""
    return (np.array([images[row["image_id"]] for row in rows], np.int64),
            np.array([categories[row["category_id"]] for row in rows], np.int64),
            np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4))


def _is_finite(value):
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_box(box):
    """Whether this is an [x, y, w, h] of finite numbers with no negative side."""
    return isinstance(box, (list, tuple)) and len(box) == 4 and all(map(_is_finite, box)) and min(box[2:]) >= 0


def _per_class(precision, names, category_ids):
    """{name: AP} over all IoU thresholds, areas and the 100 best detections; -1 for a class without ground truth."""
    places = _places(category_ids)
    per_class = {}
    for name, category in zip(class_names(names, category_ids), category_ids):
        values = precision[:, :, places[category], 0, -1]
        found = values[values > -1]
        per_class[name] = float(found.mean()) if found.size else -1.0
    return per_class
