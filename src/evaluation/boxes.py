"""Ground truth and detections of all images as arrays with one row per box."""
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Boxes(NamedTuple):
    """Ground truth or detections of all images.

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

    def sorted(self) -> Boxes:
        """Return the rows sorted by category, image and descending score. The sort is stable."""
        return self.select(np.lexsort((-self.score, self.image, self.category)))

    def groups(self) -> dict:
        """Return {(category, image): slice of its rows}. The rows must be sorted."""
        pairs = np.stack([self.category, self.image], axis=1)
        edges = [0, *np.flatnonzero((pairs[1:] != pairs[:-1]).any(axis=1)) + 1, len(pairs)]
        return {tuple(pairs[start].tolist()): slice(start, end) for start, end in zip(edges, edges[1:]) if end > start}


def to_boxes(coco_json: dict, results: list[dict], image_ids: list, category_ids: list[int]) -> tuple[Boxes, Boxes, int]:
    """Return ground truth and detections of the given images and categories. Arguments are as for `src.evaluation.coco.score`.

    Returns:
        ground truth, detections, and the number of annotations ignored because their box is invalid.
    """
    images, categories = index_by_id(image_ids), index_by_id(category_ids)
    annotations, invalid = [], 0
    for annotation in coco_json.get("annotations") or []:
        if annotation["image_id"] not in images:
            continue
        if not _is_box(annotation.get("bbox")):
            invalid += 1
        elif annotation["category_id"] in categories:
            annotations.append(annotation)
    results = [row for row in results if row["image_id"] in images and row["category_id"] in categories]

    image, category, xywh = _columns(annotations, images, categories)
    area = np.array([row["area"] if _is_finite(row.get("area")) else np.nan for row in annotations], np.float64)
    area = np.where(np.isnan(area), xywh[:, 2] * xywh[:, 3], area)
    crowd = np.array([bool(row.get("iscrowd")) for row in annotations], bool)
    ground_truth = Boxes(image, category, xywh, area, np.zeros(len(annotations)), crowd)

    image, category, xywh = _columns(results, images, categories)
    score = np.array([row["score"] for row in results], np.float64)
    detections = Boxes(image, category, xywh, xywh[:, 2] * xywh[:, 3], score, np.zeros(len(results), bool))
    return ground_truth, detections, invalid


def index_by_id(ids: list) -> dict:
    """Return {id: its index among the sorted ids}."""
    return {identifier: index for index, identifier in enumerate(sorted(set(ids)))}


def _columns(rows, images, categories):
    """Return image indices (n,), category indices (n,) and boxes (n, 4)."""
    return (np.array([images[row["image_id"]] for row in rows], np.int64),
            np.array([categories[row["category_id"]] for row in rows], np.int64),
            np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4))


def _is_finite(value):
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_box(box):
    """Return whether `box` is [x, y, w, h] with finite numbers, and w and h are not negative."""
    return isinstance(box, (list, tuple)) and len(box) == 4 and all(map(_is_finite, box)) and min(box[2:]) >= 0
