"""Checks the content of COCO annotation files and converts it into one record per image."""
from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from src.dataset.annotation_file import (
    check_id,
    checked_entries,
    existing_annotation_path,
    is_integer,
    parse_annotations,
    read_classes,
)
from src.errors import UserError, short_repr

logger = logging.getLogger("faster_rcnn")

# COCO writes coordinates with two decimals. A box with a side shorter than 0.01 pixels counts as empty.
MIN_SIDE = 0.01
MAX_SIDE = 2**31  # no image is longer
NUMBER_TYPES = frozenset((int, float))
DROP_MEANINGS = {
    "crowd": "crowd boxes (they do not train)",
    "non_finite": "boxes with a coordinate that is not finite (dropped)",
    "negative": "boxes of negative width or height (dropped)",
    "empty": "empty boxes (dropped)",
    "outside": "boxes outside their image (dropped)",
    "clipped": "boxes partly outside their image (clipped)",
}


class Record(NamedTuple):
    """One image: its file, its size in pixels as annotated, and its boxes for training."""
    image_id: int
    path: str
    height: int
    width: int
    boxes: np.ndarray    # (n, 4) float32 xyxy, original pixels, inside the image
    labels: np.ndarray   # (n,) int32, 0..K-1


@dataclass
class CocoDataset:
    """The content of an annotation file.

    `coco_json` is the parsed file without segmentations. Annotations are renumbered 1..n, and each of them has `area` and
    `iscrowd`, because pycocotools needs these keys.
    """
    records: list[Record]     # one per image, in the file's order
    names: list[str]          # class names by label
    category_ids: list[int]   # COCO category ids by label
    drops: dict[str, int]     # number of boxes for each key of DROP_MEANINGS
    annotation_path: str
    image_dir: str
    coco_json: dict


def load_coco(annotation_path: str, image_dir: str) -> CocoDataset:
    """Read and check a COCO detection file.

    The folder `annotations` may also be called `annotation`, and vice versa. Labels 0..K-1 follow ascending category ids.

    Args:
        annotation_path: path of the annotation file.
        image_dir: folder of the images.

    Raises:
        UserError: the file or the image folder is missing, the file is not COCO detection JSON, or its content is
            inconsistent.
    """
    path = existing_annotation_path(annotation_path)
    if not os.path.isdir(image_dir):
        raise UserError(f"The image folder {image_dir} does not exist: check data.dataset_dir and the data.*_img_dir "
                        f"that belongs to {path}.")
    coco = parse_annotations(path)
    names_found, category_ids = read_classes(coco["categories"], path)
    images = _checked_images(coco["images"], image_dir, path)
    boxes, labels, image_numbers, drops = _boxes(coco["annotations"], images, category_ids, path)
    records = _records(images, boxes, labels, image_numbers)
    first = records[:20]
    if not any(os.path.isfile(record.path) for record in first):
        raise UserError(f"None of the first {len(first)} images that {path} names is in {image_dir} (for example "
                        f"{os.path.relpath(first[0].path, image_dir)}): check data.dataset_dir and data.*_img_dir.")
    counts = [f"{count} {DROP_MEANINGS[reason]}" for reason, count in drops.items() if count]
    if counts:
        logger.info("%s: %s", path, ", ".join(counts))
    return CocoDataset(records, names_found, category_ids, drops, path, image_dir, coco)


def _checked_images(entries, image_dir, path):
    """Return a list of tuples (image id, file path, height, width)."""
    images = []
    for entry in checked_entries(entries, "images", "file_name", path):
        name = entry["file_name"]
        if os.path.isabs(name) or ".." in name.replace("\\", "/").split("/"):
            raise UserError(f"{path}: image {entry['id']} has the file_name {short_repr(name)}, which leads out of the "
                            f"image folder: names must be relative and without '..'.")
        size: tuple = (entry.get("height"), entry.get("width"))
        if not all(is_integer(side) and 0 < side < MAX_SIDE for side in size):
            raise UserError(f"{path}: image {entry['id']} ({short_repr(name)}) has height {short_repr(size[0])} and width "
                            f"{short_repr(size[1])}: positive integers below {MAX_SIDE} are needed.")
        images.append((entry["id"], os.path.join(image_dir, name), *size))
    return images


def _annotation_error(annotation, where):
    if not isinstance(annotation, dict):
        return UserError(f"{where} is not an object.")
    for key in ("image_id", "category_id", "bbox"):
        if key not in annotation:
            return UserError(f"{where} has no '{key}'.")
    return UserError(f"{where} is for image_id {short_repr(annotation['image_id'])} and category_id "
                     f"{short_repr(annotation['category_id'])}, and one of them is not in the lists of images and categories.")


def _box_array(annotations, path):
    """Return all bbox values as an array (n, 4) float64. Finite values are at most MAX_SIDE."""
    rows = [annotation["bbox"] for annotation in annotations]
    for number, row in enumerate(rows):
        where = f"{path}: number {number} of 'annotations' has the bbox"
        if not (isinstance(row, list) and len(row) == 4 and NUMBER_TYPES.issuperset(map(type, row))):
            raise UserError(f"{where} {short_repr(row)}: [x, y, width, height] in pixels is needed.")
        # Infinity is counted and dropped together with NaN.
        if any(MAX_SIDE < abs(value) < math.inf for value in row):
            raise UserError(f"{where} {short_repr(row)}, with a number too large for any image.")
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def _boxes(annotations, images, category_ids, path):
    """Check all annotations at once, and fill in their `id`, `area` and `iscrowd` in place.

    Returns the boxes for training (n, 4) float32 xyxy, their labels (n,) int32 and their image indices (n,), all in the
    file's order, and the number of boxes dropped or clipped for each reason.
    """
    image_index = {image[0]: index for index, image in enumerate(images)}
    label_of = {category_id: label for label, category_id in enumerate(category_ids)}
    image_numbers, labels, crowd, seen = [], [], [], set()
    for number, annotation in enumerate(annotations):
        where = f"{path}: number {number} of 'annotations'"
        try:
            image_numbers.append(image_index[annotation["image_id"]])
            labels.append(label_of[annotation["category_id"]])
            annotation["bbox"]
        except (KeyError, TypeError) as error:
            raise _annotation_error(annotation, where) from error
        if annotation.get("id") is not None:
            check_id(annotation["id"], seen, where)
        if annotation.get("iscrowd") not in (None, 0, 1):
            raise UserError(f"{where} has the iscrowd {short_repr(annotation['iscrowd'])}: 0 or 1 is needed.")
        # The format that pycocotools expects.
        annotation["id"], annotation["iscrowd"] = number + 1, 1 if annotation.get("iscrowd") else 0
        crowd.append(annotation["iscrowd"])
    xywh = _box_array(annotations, path)
    with np.errstate(invalid="ignore"):  # some boxes are not finite
        areas = xywh[:, 2] * xywh[:, 3]
    for annotation, area in zip(annotations, areas.tolist()):
        given = annotation.get("area")
        if not (type(given) in NUMBER_TYPES and abs(given) <= MAX_SIDE**2):
            annotation["area"] = area
    image_of_box = np.array(image_numbers, dtype=np.int64)
    sizes = np.array([(width, height) for _, _, height, width in images], dtype=np.float64)[image_of_box]
    boxes, keep, drops = _clip(xywh, sizes, np.array(crowd, dtype=bool))
    return boxes[keep], np.array(labels, dtype=np.int32)[keep], image_of_box[keep], drops


def _clip(xywh, sizes, crowd):
    """Clip boxes (n, 4) float64 xywh to the sizes (n, 2) of their images (width, height).

    Returns the boxes (n, 4) float32 xyxy, a mask (n,) bool of the boxes for training, and a count for each key of
    DROP_MEANINGS. Each box counts only once, under the first key that applies.
    """
    finite = np.isfinite(xywh).all(axis=1)
    corner, extent = np.hsplit(np.where(finite[:, None], xywh, 0.0), 2)
    whole = np.hstack([corner, corner + extent])
    clipped = np.clip(whole, 0.0, np.hstack([sizes, sizes]))
    reasons = {"crowd": crowd, "non_finite": ~finite, "negative": (extent < 0).any(axis=1),
               "empty": (extent < MIN_SIDE).any(axis=1),
               "outside": (clipped[:, 2:] - clipped[:, :2] < MIN_SIDE).any(axis=1)}
    keep = np.ones(len(xywh), dtype=bool)
    drops = {}
    for reason, applies in reasons.items():
        drops[reason] = int((keep & applies).sum())
        keep &= ~applies
    drops["clipped"] = int((keep & (clipped != whole).any(axis=1)).sum())
    return clipped.astype(np.float32), keep, drops


def _records(images, boxes, labels, image_numbers):
    order = np.argsort(image_numbers, kind="stable")
    ends = np.cumsum(np.bincount(image_numbers, minlength=len(images)))[:-1]
    return [Record(*image, *own) for image, *own in zip(images, np.split(boxes[order], ends), np.split(labels[order], ends))]
