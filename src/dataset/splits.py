"""Opens the training set and the validation set of a configuration, and selects and combines their classes by name."""
from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from src.config import Config
from src.dataset.annotations import CocoDataset, Dataset, load_coco
from src.dataset.shapes import ensure_shapes
from src.errors import UserError
from src.run.distributed import Group, check_same, local_rank_zero_first

logger = logging.getLogger("faster_rcnn")


def open_training_set(cfg: Config, group: Group) -> Dataset:
    """Open the training set, and check that its annotation files are the same on all processes.

    With `data.draw_shapes`, one process on each machine first generates it. Images of several files are numbered 1, 2, ...,
    because their ids may repeat.

    Raises:
        UserError: see `load_coco` and `ensure_shapes`; data.dataset_dir is empty; the classes of the files differ from each
            other or from the configuration; or the files differ between processes.
    """
    parts = _open(cfg.data, cfg.data.files("train"), group)
    names = _common_names(parts, cfg.data)
    _check_classes(names, cfg.data, parts[0].annotation_path)
    joined = _joined([with_classes(part, names, may_lack=cfg.data.unite_classes) for part in parts])
    dataset = replace(joined, coco_json={})  # which is large and not needed in training
    _log_boxes(dataset, "the detector cannot learn to find it")
    return dataset


def open_validation_set(cfg: Config, group: Group, trained: list[str] | None = None) -> CocoDataset:
    """Open the validation set, and check that its annotation files are the same on all processes.

    With `data.unite_classes`, it has the classes `trained` of the detector, by label, even if its files lack some of them.
    Images and boxes of several files are numbered 1, 2, ..., and have the category ids of the first file.

    Raises:
        UserError: see `open_training_set`.
    """
    data = cfg.data
    parts = _open(data, data.files("val"), group)
    names = data.classes or (trained if data.unite_classes else None) or _common_names(parts, data)
    unknown = [(part.annotation_path, name) for part in parts for name in part.names if name not in names]
    if unknown and not data.classes:
        raise UserError(f"{unknown[0][0]} has the class {unknown[0][1]}, which the detector does not have ({', '.join(names)}): "
                        "list the classes to evaluate in data.classes.")
    dataset = _joined([with_classes(part, names, may_lack=data.unite_classes) for part in parts])
    _check_classes(dataset.names, data, dataset.annotation_path)
    _log_boxes(dataset, "it has no AP, and the means leave it out")
    return dataset


def random_part(images: dict[int, str], fraction: float, seed: int) -> set[int]:
    """Return the ids of a random `fraction` of the images {id: path}, at least one and not all, regardless of their order.

    Equal files count as one image, so that they are in the same part. The log names them.
    """
    sizes = {number: os.path.getsize(path) for number, path in images.items() if os.path.isfile(path)}
    uses, copies = Counter(sizes.values()), defaultdict(list)
    for number in sorted(images):
        content = hashlib.sha256(Path(images[number]).read_bytes()).digest() if uses[sizes.get(number, -1)] > 1 else number
        copies[content].append(number)
    groups = sorted(copies.values())
    if same := [" = ".join(images[number] for number in group) for group in groups if len(group) > 1]:
        logger.info("equal files stay in the same part: %s", ", ".join(same))
    if len(groups) < 2:
        raise UserError("all images are the same file, so they cannot be split; leave out the validation file.")
    count = min(max(1, round(fraction * len(groups))), len(groups) - 1)
    return {number for place in np.random.default_rng(seed).permutation(len(groups))[:count] for number in groups[place]}


def _open(data, files, group):
    """Load the data sets of (annotation file, image folder) pairs."""
    if not data.dataset_dir:
        raise UserError("data.dataset_dir is empty: set it in the YAML file or with -o data.dataset_dir=FOLDER.")
    folder = os.path.expanduser(data.dataset_dir)
    with local_rank_zero_first(group):
        if data.draw_shapes:
            ensure_shapes(folder, **data.draw_shapes.model_dump())
        datasets = [load_coco(os.path.join(folder, annotations), os.path.join(folder, images)) for annotations, images in files]
    paths = [dataset.annotation_path for dataset in datasets]
    check_same(group, lambda: {f"content of {path}": hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths})
    return datasets


def _joined(parts):
    """Return one data set of `parts`, which have the same classes; paths of images are relative to their common folder."""
    if len(parts) == 1:
        return parts[0]
    first, folder = parts[0], os.path.commonpath([os.path.abspath(part.image_dir) for part in parts])
    records, images, rows = [], [], []
    for part in parts:
        numbers = {record.image_id: number for number, record in enumerate(part.records, len(records) + 1)}
        category = dict(zip(part.category_ids, first.category_ids))
        records += [record._replace(image_id=numbers[record.image_id]) for record in part.records]
        images += [{**image, "id": numbers[image["id"]], "file_name": os.path.relpath(record.path, folder)}
                   for image, record in zip(part.coco_json["images"], part.records)]
        rows += [{**row, "id": number, "image_id": numbers[row["image_id"]], "category_id": category[row["category_id"]]}
                 for number, row in enumerate(part.coco_json["annotations"], len(rows) + 1)]
    path = " and ".join(os.path.abspath(part.annotation_path) for part in parts)
    coco_json = {**first.coco_json, "images": images, "annotations": rows}
    return replace(first, records=records, annotation_path=path, image_dir=folder, coco_json=coco_json)


def _common_names(parts, data):
    """Return the class names for training by label: `data.classes`, or all parts' with `data.unite_classes`, or the first's."""
    names = list(dict.fromkeys(itertools.chain.from_iterable(part.names for part in parts)))
    for name in data.classes or ():
        if name not in names:
            path = " and ".join(part.annotation_path for part in parts)
            raise UserError(f"data.classes names {name}, but {path} has the classes {names}: correct data.classes.")
    if data.classes or data.unite_classes:
        return list(data.classes or names)
    for first, part in zip(parts, parts[1:]):
        if part.names != first.names:
            raise UserError(f"{part.annotation_path} has the classes {part.names}, but {first.annotation_path} has "
                            f"{first.names}: unite them by name with data.unite_classes=True, or choose some with data.classes.")
    return list(parts[0].names)


def with_classes(dataset: CocoDataset, names: list[str], may_lack: bool) -> CocoDataset:
    """Return the data set with the classes `names`, by label, and without boxes of other classes.

    Classes keep their category ids. With `may_lack`, classes that the data set does not have get new ids.

    Raises:
        UserError: a required class is missing, or several classes of the data set have one of these names.
    """
    if names == dataset.names:
        return dataset
    for name in names:
        count = dataset.names.count(name)
        if count > 1 or not (count or may_lack):
            raise UserError(f"{dataset.annotation_path} has {count or 'no'} classes with the name {name}, its classes are "
                            f"{dataset.names}: rename one of them, or correct data.classes.")
    ids = dict(zip(dataset.names, dataset.category_ids))
    category_ids = [ids.setdefault(name, max(ids.values()) + 1) for name in names]
    labels = np.array([names.index(name) if name in names else -1 for name in dataset.names], dtype=np.int32)
    with_labels = ((record, labels[record.labels]) for record in dataset.records)
    records = [record._replace(boxes=record.boxes[own >= 0], labels=own[own >= 0]) for record, own in with_labels]
    annotations = dataset.coco_json["annotations"]
    wanted = set(category_ids)
    kept = [annotation for annotation in annotations if annotation["category_id"] in wanted]
    if len(kept) < len(annotations):
        logger.info("%s: %d boxes of other classes are left out", dataset.annotation_path, len(annotations) - len(kept))
    categories = [{"id": category_id, "name": name} for category_id, name in zip(category_ids, names)]
    coco_json = {**dataset.coco_json, "annotations": kept, "categories": categories}
    return replace(dataset, records=records, names=list(names), category_ids=category_ids, coco_json=coco_json)


def _check_classes(found, data, path):
    """Check that the classes `found` in the file `path` match data.nc and data.names."""
    for key, given, wanted in (("nc", data.nc, len(found)), ("names", data.names, found)):
        if given is not None and given != wanted:
            raise UserError(f"data.{key} is {given}, but {path} has {len(found)} classes {found} (by ascending category id): "
                            f"correct data.{key} or leave it out.")


def _log_boxes(dataset, consequence):
    labels = np.concatenate([record.labels for record in dataset.records])
    counts = np.bincount(labels, minlength=len(dataset.names)).tolist()
    logger.info("%s: boxes by class: %s", dataset.annotation_path,
                ", ".join(f"{name} {count}" for name, count in zip(dataset.names, counts)))
    for name, count in zip(dataset.names, counts):
        if not count:
            logger.warning("%s: no box of the class %s: %s", dataset.annotation_path, name, consequence)
