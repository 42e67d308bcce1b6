"""Selects classes of an annotation file by name, and combines the classes of several files."""
from __future__ import annotations

import itertools
import logging
from collections import Counter
from dataclasses import replace

import numpy as np

from src.dataset.annotations import CocoDataset
from src.errors import UserError

logger = logging.getLogger("faster_rcnn")


def common_names(parts: list[CocoDataset], data) -> list[str]:
    """Return the class names by label of data sets that are used together for training.

    These are `data.classes`, if set. Otherwise, they are the first set's classes, and with `data.unite_classes` also later sets'.

    Args:
        parts: the data sets.
        data: the section `data` of the configuration.

    Raises:
        UserError: the sets have different classes and neither setting is given, or no set has one of `data.classes`.
    """
    every = list(dict.fromkeys(itertools.chain.from_iterable(part.names for part in parts)))
    if data.classes:
        missing = [name for name in data.classes if name not in every]
        if missing:
            raise UserError(f"data.classes names {missing[0]}, but {' and '.join(part.annotation_path for part in parts)} "
                            f"has the classes {every}: correct data.classes.")
        return list(data.classes)
    if data.unite_classes:
        return every
    first = parts[0]
    for part in parts[1:]:
        if part.names != first.names:
            raise UserError(f"{part.annotation_path} has the classes {part.names}, but {first.annotation_path} has "
                            f"{first.names}: unite them by name with data.unite_classes=True, or choose some with data.classes.")
    return first.names


def with_classes(dataset: CocoDataset, names: list[str], may_lack: bool) -> CocoDataset:
    """Return the data set with the classes `names`, by label, and without boxes of other classes.

    Classes keep their category ids. Classes that the data set does not have get new ids.

    Args:
        dataset: the data set as loaded from its file.
        names: class names.
        may_lack: whether the data set may lack some of these classes.

    Raises:
        UserError: a required class is missing, or several classes of the data set have one of these names.
    """
    if names == dataset.names:
        return dataset
    uses = Counter(dataset.names)
    for name in names:
        if uses[name] > 1 or not (uses[name] or may_lack):
            number = f"{uses[name]} classes" if uses[name] else "no class"
            raise UserError(f"{dataset.annotation_path} has {number} of the name {name}, its classes are {dataset.names}: "
                            "data.classes and data.unite_classes tell classes apart by name; rename one, or correct the list.")
    ids = dict(zip(dataset.names, dataset.category_ids))
    new_ids = itertools.count(max(dataset.category_ids) + 1)
    category_ids = [ids[name] if name in ids else next(new_ids) for name in names]
    label_of = {name: label for label, name in enumerate(names)}
    labels = np.array([label_of.get(name, -1) for name in dataset.names], dtype=np.int32)
    records = []
    for record in dataset.records:
        own = labels[record.labels]
        records.append(record._replace(boxes=record.boxes[own >= 0], labels=own[own >= 0]))
    wanted = set(category_ids)
    kept = [entry for entry in dataset.coco_json["annotations"] if entry["category_id"] in wanted]
    left_out = len(dataset.coco_json["annotations"]) - len(kept)
    if left_out:
        logger.info("%s: %d boxes of other classes are left out", dataset.annotation_path, left_out)
    categories = [{"id": category_id, "name": name} for category_id, name in zip(category_ids, names)]
    coco_json = {**dataset.coco_json, "annotations": kept, "categories": categories}
    return replace(dataset, records=records, names=list(names), category_ids=category_ids, coco_json=coco_json)


def check_classes(found: list[str], data, path: str) -> None:
    """Check that the classes `found` in the file `path` match data.nc and data.names.

    Raises:
        UserError: they do not match.
    """
    listing = f"{len(found)} classes {found}"
    if data.nc is not None and data.nc != len(found):
        raise UserError(f"data.nc is {data.nc}, but {path} has {listing}: correct data.nc or leave it out.")
    if data.names is not None and list(data.names) != found:
        raise UserError(f"data.names lists {len(data.names)} classes {list(data.names)}, but {path} has {listing} (by ascending "
                        f"category id): correct data.names or leave it out.")
