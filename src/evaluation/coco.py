"""The COCO detection numbers, computed by pycocotools."""
import contextlib
import io
import logging
import math
from collections import Counter

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

logger = logging.getLogger("faster_rcnn")

# In the order in which pycocotools' summary gives them.
KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class _BoxEvaluation(COCOeval):
    """pycocotools' evaluation with a short cut where an image has no ground truth of a class.

    Most pairs of an image and a class are such pairs, and there is nothing to match in them: a detection in the area
    range is a false positive, one outside does not count. The numbers stay the same.
    """

    def computeIoU(self, imgId, catId):  # noqa: N802, N803 (the names are pycocotools')
        return super().computeIoU(imgId, catId) if self._gts[imgId, catId] else []

    def evaluateImg(self, imgId, catId, aRng, maxDet):  # noqa: N802, N803
        if self._gts[imgId, catId]:
            return super().evaluateImg(imgId, catId, aRng, maxDet)
        found = sorted(self._dts[imgId, catId], key=lambda row: -row["score"])[:maxDet]
        outside = [row["area"] < aRng[0] or row["area"] > aRng[1] for row in found]
        if all(outside):
            return None
        none = np.zeros((len(self.params.iouThrs), len(found)), bool)
        return {
            "dtScores": [row["score"] for row in found],
            "dtMatches": none,
            "dtIgnore": none | outside if any(outside) else none,
            "gtIgnore": np.zeros(0),
        }


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
    truth = _index(_ground_truth(coco_json, image_ids), category_ids)
    evaluation = _BoxEvaluation(truth, _index(_detections(results), category_ids), "bbox")
    evaluation.params.imgIds = list(image_ids)
    evaluation.params.catIds = list(category_ids)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    with contextlib.redirect_stdout(io.StringIO()) as summary:
        evaluation.summarize()
    logger.info("COCO numbers of %d images:\n%s", len(image_ids), summary.getvalue().rstrip())
    metrics = {key: float(value) for key, value in zip(KEYS, evaluation.stats)}
    metrics["images"] = len(image_ids)
    metrics["per_class"] = _per_class(evaluation, names, category_ids)
    return metrics


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


def _index(annotations, category_ids):
    """A pycocotools COCO object over annotations that are already in memory (its own loaders fail on an empty list)."""
    coco = COCO()
    coco.dataset = {"annotations": annotations, "images": [], "categories": [{"id": i} for i in category_ids]}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _ground_truth(coco_json, image_ids):
    """The annotations of the given images, with only what the evaluation reads.

    The ids are new, from 1: pycocotools takes a match with id 0 for none, and loses annotations that share an id.
    """
    wanted, annotations, bad = set(image_ids), [], 0
    for annotation in coco_json.get("annotations") or []:
        if annotation["image_id"] not in wanted:
            continue
        box = annotation.get("bbox")
        if not _is_box(box):
            bad += 1
            continue
        area = annotation.get("area")
        annotations.append({
            "id": len(annotations) + 1,
            "image_id": annotation["image_id"],
            "category_id": annotation["category_id"],
            "bbox": box,
            "area": area if _is_finite(area) else box[2] * box[3],
            "iscrowd": int(annotation.get("iscrowd") or 0),
        })
    if bad:
        logger.warning("%d annotations without a valid box (four finite numbers, no negative side) are not scored", bad)
    return annotations


def _is_finite(value):
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_box(box):
    """Whether this is an [x, y, w, h] of finite numbers with no negative side."""
    return isinstance(box, (list, tuple)) and len(box) == 4 and all(map(_is_finite, box)) and min(box[2:]) >= 0


def _detections(results):
    return [{**row, "id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
            for number, row in enumerate(results, 1)]


def _per_class(evaluation, names, category_ids):
    """{name: AP} over all IoU thresholds, areas and the 100 best detections; -1 for a class without ground truth."""
    uses = Counter(names)
    # (IoU thresholds, recalls, categories, areas, detection limits)
    precision = evaluation.eval["precision"][..., 0, -1]
    columns = {category: column for column, category in enumerate(evaluation.params.catIds)}
    per_class = {}
    for name, category in zip(names, category_ids):
        values = precision[:, :, columns[category]]
        found = values[values > -1]
        per_class[name if uses[name] == 1 else f"{name} ({category})"] = float(found.mean()) if found.size else -1.0
    return per_class
