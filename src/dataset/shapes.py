"""Generates the synthetic data set of the quick start: JPEG files and annotations in the layout of COCO2017."""
import json
import logging
import os
import shutil

import cv2
import numpy as np

from src.dataset.drawing import CLASSES, draw_scene
from src.errors import UserError

logger = logging.getLogger("faster_rcnn")

PARAMETERS_FILE = "shapes.json"
DRAWING_VERSION = 1   # increase it when the same parameters produce different images


def ensure_shapes(root: str, train_images: int, val_images: int, height: int, width: int, seed: int) -> None:
    """Generate the data set in the folder `root`, unless it already exists there with the same parameters.

    It is written to a temporary folder next to `root` and renamed when complete, so `root` is never incomplete.
    The images depend only on the parameters and `seed`. Training and validation images differ.

    Args:
        root: folder of the data set.
        train_images: number of training images.
        val_images: number of validation images.
        height: image height in pixels.
        width: image width in pixels.
        seed: random seed.

    Raises:
        UserError: `root` contains something else or cannot be written.
    """
    parameters = {"train_images": train_images, "val_images": val_images, "height": height, "width": width,
                  "seed": seed, "drawing_version": DRAWING_VERSION}
    root = os.path.abspath(root)
    if _is_drawn(root, parameters):
        return
    partial = f"{root}.partial-{os.getpid()}"
    logger.info("drawing %d + %d images into %s", train_images, val_images, root)
    try:
        for number, (split, count) in enumerate((("train2017", train_images), ("val2017", val_images))):
            _draw_split(partial, split, count, height, width, [seed, number])
        with open(os.path.join(partial, PARAMETERS_FILE), "w", encoding="utf-8") as file:
            json.dump(parameters, file, indent=1)
        try:
            os.rename(partial, root)
        except OSError:
            # Another process may have generated the same data set meanwhile. Otherwise, the error of os.rename is raised.
            if not _is_drawn(root, parameters):
                raise
    except OSError as error:
        raise UserError(f"The self-drawn data set cannot be written to {root}: {error.strerror or error}; set "
                        f"data.dataset_dir to a folder that can be written.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_drawn(root, parameters):
    """Return whether `root` contains the data set with these parameters: False if it does not exist or is empty."""
    if not os.path.lexists(root) or (os.path.isdir(root) and not os.listdir(root)):
        return False
    try:
        with open(os.path.join(root, PARAMETERS_FILE), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        found = None
    if found == parameters:
        return True
    difference = "something else"
    if isinstance(found, dict):
        keys = [key for key in parameters if found.get(key) != parameters[key]]
        difference = "a self-drawn data set with " + ", ".join(
            f"{key} {found.get(key)} instead of {parameters[key]}" for key in keys)
    raise UserError(f"{root} holds {difference}: remove that folder or set another data.dataset_dir.")


def _draw_split(root, split, count, height, width, seed):
    """Draw one split's images and write its annotation file."""
    os.makedirs(os.path.join(root, split))
    os.makedirs(os.path.join(root, "annotations"), exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        image, boxes, category_ids, areas = draw_scene(np.random.default_rng([*seed, number]), height, width)
        name = f"{number + 1:06d}.jpg"
        _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
        with open(os.path.join(root, split, name), "wb") as file:  # cv2.imwrite would not report why it failed
            file.write(data.tobytes())
        images.append({"id": number + 1, "file_name": name, "height": height, "width": width})
        for (x1, y1, x2, y2), category_id, area in zip(boxes.tolist(), category_ids.tolist(), areas.tolist()):
            annotations.append({"id": len(annotations) + 1, "image_id": number + 1, "category_id": category_id,
                                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": area, "iscrowd": 0})
    coco = {"info": {"description": "self-drawn coloured shapes"}, "images": images, "annotations": annotations,
            "categories": [{"id": category_id, "name": name} for name, category_id in CLASSES.items()]}
    with open(os.path.join(root, "annotations", f"instances_{split}.json"), "w", encoding="utf-8") as file:
        json.dump(coco, file)
