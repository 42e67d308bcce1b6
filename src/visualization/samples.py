"""Draws sample images of an evaluation with annotated boxes next to detections."""
from __future__ import annotations

import glob
import os
from collections.abc import Sequence

import numpy as np

from src.dataset.annotations import CocoDataset
from src.dataset.image import UnreadableImageError, read_image
from src.run.files import make_folder, writing_into
from src.visualization.boxes import draw_boxes
from src.visualization.font import Font
from src.visualization.output import write_image
from src.visualization.sheet import contact_sheet, fit

SAMPLES = 8
MIN_SCORE = 0.3  # confidence threshold of the drawn detections
SIDE = 640  # longer side of each image, in pixels


def write_samples(folder: str, dataset: CocoDataset, results: list[dict], fonts: Sequence[Font] = ()) -> None:
    """Draw up to SAMPLES images, evenly spread over the data set, to <folder>/samples/<image id>.jpg.

    Annotated boxes are on the left, detections with scores >= MIN_SCORE on the right. Samples of earlier
    evaluations are removed. Unreadable images are left out. `results` are detections in COCO's result format, and `fonts`
    are fonts for class names and file names with non-ASCII characters.

    Raises:
        UserError: the images cannot be written, for example because the disk is full.
    """
    folder = make_folder(os.path.join(folder, "samples"))
    chosen = np.unique(np.linspace(0, len(dataset.records) - 1, SAMPLES).round().astype(int))
    rows_of = {dataset.records[number].image_id: [] for number in chosen}
    for row in results:
        if row["score"] >= MIN_SCORE and row["image_id"] in rows_of:
            rows_of[row["image_id"]].append(row)
    with writing_into(folder, "the samples"):
        written = [_write_sample(folder, dataset.records[number], rows_of, dataset, fonts) for number in chosen]
        for path in set(glob.glob(os.path.join(glob.escape(folder), "*.jpg"))).difference(written):
            os.remove(path)


def _write_sample(folder, record, rows_of, dataset, fonts):
    """Draw one image. Return the path of the file, or None for an unreadable image."""
    try:
        image = read_image(record.path, (record.height, record.width))
    except UnreadableImageError:
        return None  # the evaluation has logged it
    rows = rows_of[record.image_id]
    label_of = {category_id: label for label, category_id in enumerate(dataset.category_ids)}
    found = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    found[:, 2:] += found[:, :2]
    scaled, boxes = fit(image, np.concatenate([record.boxes, found]), SIDE, SIDE)
    count = len(record.boxes)
    annotated = draw_boxes(scaled, boxes[:count], record.labels, dataset.names, fonts=fonts)
    detected = draw_boxes(scaled, boxes[count:], [label_of[row["category_id"]] for row in rows], dataset.names,
                          [row["score"] for row in rows], fonts)
    name = os.path.basename(record.path)
    sheet = contact_sheet([annotated, detected], [[f"{name} (id {record.image_id}): {count} annotated"],
                                                  [f"{len(rows)} detected with a score of {MIN_SCORE} or more"]], 2, fonts)
    path = os.path.join(folder, f"{record.image_id}.jpg")
    write_image(path, sheet)
    return path
