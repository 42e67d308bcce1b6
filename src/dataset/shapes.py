"""Generates the synthetic data set of the quick start: coloured shapes on textured backgrounds, in the layout of COCO2017."""
from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from src.errors import UserError

logger = logging.getLogger("faster_rcnn")

PARAMETERS_FILE = "shapes.json"
DRAWING_VERSION = 1   # increase it when the same parameters produce different images
CLASSES = {"circle": 3, "rectangle": 7, "triangle": 18, "star": 44}  # category ids have gaps, as in COCO
MAX_OBJECTS = 6
# The hue differs between classes and has many shades, so that a detector learns both colour and shape within minutes.
HUES = {"circle": 0, "rectangle": 60, "triangle": 120, "star": 27}  # degrees / 2, as in OpenCV
HUE_SPREAD = 9
BACKGROUND_COLOURFULNESS = 0.4   # 0 is grey
MIN_EXTENT, MAX_EXTENT = 0.08, 0.55   # size of a shape relative to the image's shorter side
MAX_COVERED = 0.6                # largest fraction of a shape that others may cover
SHIFT = 4                        # fractional bits of OpenCV's polygon coordinates


def ensure_shapes(root: str, train_images: int, val_images: int, height: int, width: int, seed: int) -> None:
    """Generate the data set in the folder `root`, unless it already exists there with the same parameters.

    It is written to a temporary folder next to `root` and renamed when complete, so `root` is never incomplete. The numbers of
    images, their size in pixels and the seed determine all images. Training and validation images differ.

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
        _draw_split(partial, "train2017", train_images, height, width, [seed, 0])
        _draw_split(partial, "val2017", val_images, height, width, [seed, 1])
        Path(partial, PARAMETERS_FILE).write_text(json.dumps(parameters, indent=1), encoding="utf-8")
        try:
            os.rename(partial, root)
        except OSError:
            # Another process may have generated the same data set meanwhile. Otherwise, the error of os.rename is raised.
            if not _is_drawn(root, parameters):
                raise
    except OSError as error:
        raise UserError(f"The self-drawn data set cannot be written to {root}: {error.strerror or error}; set another "
                        "data.dataset_dir.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_drawn(root, parameters):
    """Return whether `root` contains the data set with these parameters: False if it does not exist or is empty."""
    if not os.path.lexists(root) or (os.path.isdir(root) and not os.listdir(root)):
        return False
    try:
        found = json.loads(Path(root, PARAMETERS_FILE).read_text(encoding="utf-8"))
        different = [f"{key} {found.get(key)} instead of {value}" for key, value in parameters.items() if found.get(key) != value]
    except (OSError, ValueError, AttributeError):
        different = [f"no valid {PARAMETERS_FILE}"]
    if different:
        raise UserError(f"{root} holds something else than the self-drawn data set ({', '.join(different)}): remove that folder "
                        "or set another data.dataset_dir.")
    return True


def _draw_split(root, split, count, height, width, seed):
    """Draw one split's images and write its annotation file."""
    os.makedirs(os.path.join(root, split))
    os.makedirs(os.path.join(root, "annotations"), exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        image, boxes, category_ids, areas = draw_scene(np.random.default_rng([*seed, number]), height, width)
        name = f"{number + 1:06d}.jpg"
        _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
        Path(root, split, name).write_bytes(data.tobytes())  # cv2.imwrite would not report why it failed
        images.append({"id": number + 1, "file_name": name, "height": height, "width": width})
        for (x1, y1, x2, y2), category_id, area in zip(boxes.tolist(), category_ids.tolist(), areas.tolist()):
            annotations.append({"id": len(annotations) + 1, "image_id": number + 1, "category_id": category_id,
                                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": area, "iscrowd": 0})
    coco = {"info": {"description": "self-drawn coloured shapes"}, "images": images, "annotations": annotations,
            "categories": [{"id": category_id, "name": name} for name, category_id in CLASSES.items()]}
    Path(root, "annotations", f"instances_{split}.json").write_text(json.dumps(coco), encoding="utf-8")


def draw_scene(rng: Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return an image with 1 to 6 shapes (height, width, 3) uint8 RGB, boxes (n, 4) int xyxy around the visible pixels of the
    shapes, category ids (n,), and areas (n,) in visible pixels."""
    image = draw_background(rng, height, width)
    names = list(CLASSES)
    sizes, visible, ids = [], [], []
    wanted = rng.integers(1, MAX_OBJECTS + 1)
    for _ in range(wanted * 4):
        if len(ids) == wanted:
            break
        name = names[rng.integers(len(names))]
        corners = _place(name, rng, height, width)
        coverage = covered_part(corners, height, width)
        mask = coverage >= 0.5
        remaining = [old & ~mask for old in visible]
        if mask.sum() < 12 or any(left.sum() < (1 - MAX_COVERED) * size for left, size in zip(remaining, sizes)):
            continue
        fill, edge = _colours(name, rng, image[mask].mean(axis=0))
        _paint(image, corners, coverage, fill, edge)
        visible = remaining + [mask]
        sizes.append(mask.sum())
        ids.append(CLASSES[name])
    boxes = np.array([_box_around(mask) for mask in visible])
    return np.round(image).astype(np.uint8), boxes, np.array(ids), np.array([mask.sum() for mask in visible])


def draw_background(rng: Generator, height: int, width: int) -> np.ndarray:
    """Return a smooth two-colour gradient with stripes and noise: (height, width, 3) float32 RGB in 0..255."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle, stripe_angle = rng.uniform(0, 2 * np.pi, 2)
    ramp = (x * np.cos(angle) + y * np.sin(angle)) / np.hypot(height, width) + 0.5
    shades = rng.uniform(30, 225, (2, 3)).astype(np.float32)
    grey = shades.mean(axis=1, keepdims=True)
    dark, light = grey + BACKGROUND_COLOURFULNESS * (shades - grey)
    image = dark + (light - dark) * ramp[..., None].astype(np.float32)
    period = rng.uniform(5, 30)
    stripes = np.sin((x * np.cos(stripe_angle) + y * np.sin(stripe_angle)) * (2 * np.pi / period))
    image += stripes[..., None] * rng.uniform(-18, 18, 3)
    coarse = rng.normal(0, 14, (height // 8 + 2, width // 8 + 2, 3)).astype(np.float32)
    image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, rng.uniform(2, 8), (height, width, 1))
    return np.clip(image, 0, 255)


def outline(name: str, rng: Generator) -> np.ndarray:
    """Return the corners (n, 2) of a shape around the origin, within the unit circle."""
    if name == "circle":
        angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if name == "rectangle":
        sides = rng.uniform(0.55, 1.0), 1.0
        if rng.random() < 0.5:
            sides = sides[::-1]
        return np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * sides / np.hypot(*sides)
    corners = {"triangle": 3, "star": 10}[name]
    angles = np.arange(corners) * 2 * np.pi / corners - np.pi / 2
    radii = np.where(np.arange(corners) % 2, 0.42, 1.0) if name == "star" else np.ones(corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]


def _place(name, rng, height, width):
    """Return the corners (n, 2) of a shape of random size and rotation, in pixels. Its random centre is well inside the image."""
    corners = outline(name, rng)
    turn = rng.uniform(-0.5, 0.5)
    corners = corners @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    extent = min(height, width) * np.exp(rng.uniform(np.log(MIN_EXTENT), np.log(MAX_EXTENT)))
    corners *= extent / np.ptp(corners, axis=0).max()
    margin = 0.35 * extent
    return corners + rng.uniform((margin, margin), (width - margin, height - margin))


def covered_part(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the fraction of each pixel that a polygon covers: (height, width) float32 in 0..1, anti-aliased at the edge."""
    mask = np.zeros((height, width), dtype=np.uint8)
    cv2.fillPoly(mask, [np.round(corners * 2 ** SHIFT).astype(np.int32)], 255, cv2.LINE_AA, SHIFT)
    return mask.astype(np.float32) / 255


def _colours(name, rng, surroundings):
    """Return a fill colour of the class that contrasts with the mean colour (3,) around it, and a darker or lighter edge."""
    while True:
        hue = (HUES[name] + rng.uniform(-HUE_SPREAD, HUE_SPREAD)) % 180
        hsv = np.array([[[2 * hue, rng.uniform(0.55, 1), rng.uniform(0.45, 1)]]], np.float32)
        fill = 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float64)
        if np.abs(fill - surroundings).max() > 70:
            return fill, fill * 0.35 if fill.mean() > 90 else 255 - (255 - fill) * 0.35


def _paint(image, corners, coverage, fill, edge):
    """Blend a shape with a thin edge into the image (h, w, 3) float32 in place."""
    middle = corners.mean(axis=0)
    inner = covered_part(middle + (corners - middle) * 0.86, *image.shape[:2])
    left, top, right, bottom = _box_around(coverage > 0)
    window = np.s_[top:bottom, left:right]
    shape = edge + inner[window][..., None] * (fill - edge)
    image[window] += coverage[window][..., None] * (shape - image[window])


def _box_around(mask):
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
