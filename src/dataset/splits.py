"""Opens the training set and the validation set of a configuration."""
from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.dataset.annotations import CocoDataset, Record, load_coco
from src.dataset.classes import check_classes, common_names, with_classes
from src.dataset.shapes import ensure_shapes
from src.errors import UserError
from src.run.distributed import Group, check_same, local_rank_zero_first

logger = logging.getLogger("faster_rcnn")


class TrainingSet(NamedTuple):
    """The images of one or more annotation files.

    Images of several files are numbered 1, 2, ..., because their ids may repeat.
    """
    records: list[Record]   # one per image, in the files' order
    names: list[str]        # class names by label
    annotation_path: str    # paths of the files, for messages


def open_training_set(cfg, group: Group) -> TrainingSet:
    """Open the training set, and check that its annotation files are the same on all processes.

    With `data.draw_shapes`, one process on each machine first generates it.

    Raises:
        UserError: see `load_coco`, `ensure_shapes`, `common_names` and `check_classes`; data.dataset_dir is empty; or the
            files differ between processes.
    """
    parts = _open(cfg.data, cfg.data.train_files, group)
    names = common_names(parts, cfg.data)
    check_classes(names, cfg.data, parts[0].annotation_path)
    records = [record for part in parts for record in with_classes(part, names, may_lack=cfg.data.unite_classes).records]
    if len(parts) > 1:
        records = [record._replace(image_id=number) for number, record in enumerate(records, 1)]
    dataset = TrainingSet(records, names, " and ".join(part.annotation_path for part in parts))
    _log_boxes(dataset, "the detector cannot learn to find it")
    return dataset


def training_records(dataset: TrainingSet | CocoDataset, keep_empty_images: bool) -> list[Record]:
    """Return the records for training, in order. Records without boxes are included only with `keep_empty_images`.

    Raises:
        UserError: no record has a box.
    """
    with_boxes = [record for record in dataset.records if len(record.boxes)]
    if not with_boxes:
        raise UserError(f"No image of {dataset.annotation_path} has a box to train on: training needs annotations "
                        f"that are neither crowds nor empty.")
    empty = len(dataset.records) - len(with_boxes)
    if empty:
        logger.info("%s: %d of %d images have no box and are %s", dataset.annotation_path, empty, len(dataset.records),
                    "background" if keep_empty_images else
                    "left out of training (data.keep_empty_images takes them as background)")
    return dataset.records if keep_empty_images else with_boxes


def open_validation_set(cfg, group: Group, trained: list[str] | None = None) -> CocoDataset:
    """Open the validation set, and check that its annotation file is the same on all processes.

    Args:
        cfg: the configuration.
        group: the process group.
        trained: the detector's class names by label. With `data.unite_classes`, the validation set has these classes, even if
            its file lacks some of them.

    Raises:
        UserError: see `open_training_set`.
    """
    data = cfg.data
    [dataset] = _open(data, [(data.val_anno_path, data.val_img_dir)], group)
    if data.classes:
        dataset = with_classes(dataset, data.classes, may_lack=data.unite_classes)
    elif data.unite_classes and trained:
        unknown = [name for name in dataset.names if name not in trained]
        if unknown:
            raise UserError(f"{dataset.annotation_path} has the class {unknown[0]}, which the detector does not have "
                            f"({', '.join(trained)}): name the classes that count in data.classes.")
        dataset = with_classes(dataset, trained, may_lack=True)
    check_classes(dataset.names, data, dataset.annotation_path)
    _log_boxes(dataset, "it has no AP, and the means leave it out")
    return dataset


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


def _log_boxes(dataset, consequence):
    labels = np.concatenate([record.labels for record in dataset.records])
    counts = np.bincount(labels, minlength=len(dataset.names)).tolist()
    logger.info("%s: boxes by class: %s", dataset.annotation_path,
                ", ".join(f"{name} {count}" for name, count in zip(dataset.names, counts)))
    for name, count in zip(dataset.names, counts):
        if not count:
            logger.warning("%s: no box of the class %s: %s", dataset.annotation_path, name, consequence)
