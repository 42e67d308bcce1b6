"""Reads and checks COCO annotation files, and converts them into one record per image."""
from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from src.errors import UserError, is_printable, short_repr

logger = logging.getLogger("faster_rcnn")

# COCO's files have 0.45 GB. Those of the largest public data sets in this format (LVIS, Objects365, OpenImages) have one to a
# few GB. A parsed file needs several times its size in memory.
MAX_BYTES = 2**33
# COCO writes coordinates with two decimals. A box with a side shorter than 0.01 pixels counts as empty.
MIN_SIDE = 0.01
MAX_SIDE = 2**31  # no image is longer
NUMBER_TYPES = frozenset((int, float))


class Record(NamedTuple):
    """One image: its file, its size in pixels as annotated, and its boxes for training."""
    image_id: int
    path: str
    height: int
    width: int
    boxes: np.ndarray    # (n, 4) float32 xyxy, original pixels, inside the image
    labels: np.ndarray   # (n,) int32, 0..K-1


@dataclass
class Dataset:
    """The images of one or more annotation files."""
    records: list[Record]     # one per image, in the files' order
    names: list[str]          # class names by label
    annotation_path: str      # with several files, their paths joined for messages


@dataclass
class CocoDataset(Dataset):
    """The content of an annotation file.

    `coco_json` is the parsed file without segmentations. Annotations are renumbered 1..n, and each of them has `area` and
    `iscrowd`, because pycocotools needs these keys.
    """
    category_ids: list[int]   # COCO category ids by label
    image_dir: str
    coco_json: dict


def load_coco(annotation_path: str, image_dir: str) -> CocoDataset:
    """Read and check a COCO detection file, see `existing_annotation_path`. Labels 0..K-1 follow ascending category ids.

    Raises:
        UserError: the file or the image folder is missing, the file is not COCO detection JSON, or its content is
            inconsistent.
    """
    path = existing_annotation_path(annotation_path)
    if not os.path.isdir(image_dir):
        raise UserError(f"The image folder {image_dir} does not exist: check data.dataset_dir and the data.*_img_dir of {path}.")
    coco = parse_annotations(path)
    names, category_ids = read_classes(coco["categories"], path)
    images = _read_images(coco["images"], image_dir, path)
    boxes, labels, image_index = _read_boxes(coco["annotations"], images, category_ids, path)
    order = np.argsort(image_index, kind="stable")
    ends = np.cumsum(np.bincount(image_index, minlength=len(images)))[:-1]
    records = [Record(*image, *own) for image, *own in zip(images, np.split(boxes[order], ends), np.split(labels[order], ends))]
    first = records[:20]
    if not any(os.path.isfile(record.path) for record in first):
        raise UserError(f"None of the first {len(first)} images that {path} names is in {image_dir} (for example "
                        f"{os.path.relpath(first[0].path, image_dir)}): check data.dataset_dir and data.*_img_dir.")
    return CocoDataset(records, names, path, category_ids, image_dir, coco)


def existing_annotation_path(path: str) -> str:
    """Return `path` if it is a file, else the same path with the folder `annotation` instead of `annotations`, or vice versa.

    Raises:
        UserError: neither path is a file.
    """
    parent, folder = os.path.split(os.path.dirname(path))
    other = {"annotations": "annotation", "annotation": "annotations"}.get(folder, folder)
    candidates = dict.fromkeys((path, os.path.join(parent, other, os.path.basename(path))))
    found = [candidate for candidate in candidates if os.path.isfile(candidate)]
    if not found:
        raise UserError(f"The annotation file {' or '.join(candidates)} does not exist or is not a file: check data.dataset_dir "
                        "and the data.*_anno_path.")
    return found[0]


def parse_annotations(path: str) -> dict:
    """Return the content of a COCO file without its segmentations: a dict with `info` and three lists of dicts.

    Raises:
        UserError: the file cannot be read, is too large, is not JSON, or lacks images, annotations or categories.
    """
    try:
        size = os.path.getsize(path)
        if size > MAX_BYTES:
            raise ValueError(f"it has {size} bytes, more than the {MAX_BYTES} that are read; split the data set")
        with open(path, encoding="utf-8-sig") as file:  # with or without a byte order mark
            coco = json.load(file, object_hook=_without_segmentation)
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"The annotation file {path} cannot be read as JSON: {str(error) or 'too large'}.") from error
    for key, may_be_empty in (("images", False), ("annotations", True), ("categories", False)):
        entries = coco.get(key) if isinstance(coco, dict) else None
        if not isinstance(entries, list) or not (entries or may_be_empty):
            raise UserError(f"The annotation file {path} is not a COCO detection file: its list '{key}' is missing or empty.")
    coco.setdefault("info", {})
    return coco


def _without_segmentation(node: dict) -> dict:
    # Polygons take most of the 2 GB that COCO needs in memory. This program uses boxes only.
    node.pop("segmentation", None)
    return node


def read_class_names(annotation_path: str) -> list[str]:
    """Return the class names by label, and raise errors, as `load_coco` does, without checking the images and boxes."""
    path = existing_annotation_path(annotation_path)
    return read_classes(parse_annotations(path)["categories"], path)[0]


def read_classes(categories: list, path: str) -> tuple[list[str], list[int]]:
    """Return the names and the category ids of the classes by label. Labels follow ascending category ids."""
    by_id = {entry["id"]: entry["name"] for entry in _checked_entries(categories, "categories", "name", path)}
    category_ids = sorted(by_id)
    return [by_id[category_id] for category_id in category_ids], category_ids


def _checked_entries(entries: list, kind: str, text_key: str, path: str) -> Iterator[dict]:
    """Yield the entries of a list of images or categories. Each must be a dict with a unique integer id and non-empty text."""
    seen: set[int] = set()
    for number, entry in enumerate(entries):
        where = f"{path}: number {number} of '{kind}'"
        if not isinstance(entry, dict):
            raise UserError(f"{where} is not an object.")
        _check_id(entry.get("id"), seen, where)
        text = entry.get(text_key)
        if not (isinstance(text, str) and text and is_printable(text)):
            raise UserError(f"{where} (id {entry['id']}) has the {text_key} {short_repr(text)}: a text without line ends and "
                            "other characters that cannot be shown is needed.")
        yield entry


def _check_id(identifier, seen, where):
    if type(identifier) is not int or abs(identifier) >= 2**63 or identifier in seen:
        raise UserError(f"{where} has the id {short_repr(identifier)}: a unique integer of at most 63 bits is needed.")
    seen.add(identifier)


def _read_images(entries, image_dir, path):
    """Return a list of tuples (image id, file path, height, width)."""
    images = []
    for entry in _checked_entries(entries, "images", "file_name", path):
        name, size = entry["file_name"], (entry.get("height"), entry.get("width"))
        where = f"{path}: image {entry['id']} ({short_repr(name)})"
        if os.path.isabs(name) or ".." in name.replace("\\", "/").split("/"):
            raise UserError(f"{where} leads out of the image folder: file names must be relative and without '..'.")
        if not all(type(side) is int and 0 < side < MAX_SIDE for side in size):
            raise UserError(f"{where} has height {short_repr(size[0])} and width {short_repr(size[1])}: positive integers below "
                            f"{MAX_SIDE} are needed.")
        images.append((entry["id"], os.path.join(image_dir, name), *size))
    return images


def _read_boxes(annotations, images, category_ids, path):
    """Check all annotations, and fill in their `id`, `area` and `iscrowd` in place. The log counts dropped and clipped boxes.

    Returns the boxes for training (n, 4) float32 xyxy, their labels (n,) int32 and their image indices (n,) in the file's order.
    """
    index_of = {image[0]: index for index, image in enumerate(images)}
    label_of = {category_id: label for label, category_id in enumerate(category_ids)}
    image_index, labels, crowd, rows, seen = [], [], [], [], set()
    for number, annotation in enumerate(annotations):
        where = f"{path}: number {number} of 'annotations'"
        try:
            image_index.append(index_of[annotation["image_id"]])
            labels.append(label_of[annotation["category_id"]])
            row = annotation["bbox"]
        except (KeyError, TypeError) as error:
            given = annotation if isinstance(annotation, dict) else {}
            ids = [f"the {key} {short_repr(given.get(key))}" for key in ("image_id", "category_id")]
            raise UserError(f"{where} has {' and '.join(ids)}: an object with a bbox, and with ids from the lists of images and "
                            "categories, is needed.") from error
        # Infinity is counted and dropped together with NaN.
        if not (isinstance(row, list) and len(row) == 4 and NUMBER_TYPES.issuperset(map(type, row))) or (
                not -MAX_SIDE <= min(row) <= max(row) <= MAX_SIDE and any(MAX_SIDE < abs(value) < math.inf for value in row)):
            raise UserError(f"{where} has the bbox {short_repr(row)}: [x, y, width, height] in pixels, at most {MAX_SIDE}, is "
                            "needed.")
        if annotation.get("id") is not None:
            _check_id(annotation["id"], seen, where)
        if annotation.get("iscrowd") not in (None, 0, 1):
            raise UserError(f"{where} has the iscrowd {short_repr(annotation['iscrowd'])}: 0 or 1 is needed.")
        # The format that pycocotools expects.
        annotation["id"], annotation["iscrowd"] = number + 1, 1 if annotation.get("iscrowd") else 0
        area = annotation.get("area")
        if not (type(area) in NUMBER_TYPES and abs(area) <= MAX_SIDE**2):
            annotation["area"] = float(row[2]) * row[3]
        crowd.append(annotation["iscrowd"])
        rows.append(row)
    image_of_box = np.array(image_index, dtype=np.int64)
    sizes = np.array([(width, height) for _, _, height, width in images], dtype=np.float64)[image_of_box]
    boxes, keep, counts = _clip(np.array(rows, dtype=np.float64).reshape(-1, 4), sizes, np.array(crowd, dtype=bool))
    if any(counts.values()):
        logger.info("%s: %s", path, ", ".join(f"{count} {reason}" for reason, count in counts.items() if count))
    return boxes[keep], np.array(labels, dtype=np.int32)[keep], image_of_box[keep]


def _clip(xywh, sizes, crowd):
    """Clip boxes (n, 4) float64 xywh to the sizes (n, 2) of their images (width, height).

    Returns the boxes (n, 4) float32 xyxy, a mask (n,) bool of the boxes for training, and the number of dropped and clipped boxes
    for each reason. Each box counts only once, for the first reason that applies.
    """
    finite = np.isfinite(xywh).all(axis=1)
    corner, extent = np.hsplit(np.where(finite[:, None], xywh, 0.0), 2)
    whole = np.hstack([corner, corner + extent])
    clipped = np.clip(whole, 0.0, np.hstack([sizes, sizes]))
    keep, counts = np.ones(len(xywh), dtype=bool), {}
    for reason, applies in (
            ("crowd boxes (they do not train)", crowd),
            ("boxes with a coordinate that is not finite (dropped)", ~finite),
            ("boxes of negative width or height (dropped)", (extent < 0).any(axis=1)),
            ("empty boxes (dropped)", (extent < MIN_SIDE).any(axis=1)),
            ("boxes outside their image (dropped)", (clipped[:, 2:] - clipped[:, :2] < MIN_SIDE).any(axis=1))):
        counts[reason] = np.count_nonzero(keep & applies)
        keep &= ~applies
    counts["boxes partly outside their image (clipped)"] = np.count_nonzero(keep & (clipped != whole).any(axis=1))
    return clipped.astype(np.float32), keep, counts
