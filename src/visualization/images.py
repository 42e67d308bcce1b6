"""Draws contact sheets and the sample images of an evaluation, and writes images to files."""
from __future__ import annotations

import glob
import os
from collections.abc import Sequence

import cv2
import numpy as np

from deploy.drawing import draw_boxes, drawable, fit_text
from src.dataset.annotations import CocoDataset, Record
from src.dataset.image import UnreadableImageError, read_image
from src.run.files import atomic_write, make_folder, writing_into

JPEG_QUALITY = 92
BACKGROUND, CAPTION = (245, 245, 245), (20, 20, 20)
GAP = 10  # pixels between the images of a contact sheet
LETTERS = 11  # height of a caption's capital letters in pixels
SAMPLES = 8
MIN_SCORE = 0.3  # confidence threshold of the detections drawn on samples
SIDE = 640  # longer side of each sample, in pixels


def write_image(path: str, image: np.ndarray) -> None:
    """Write (h, w, 3) uint8 RGB to a .jpg or .png file.

    Raises:
        OSError: it could not be written; an earlier file of that name is unchanged.
    """
    _, data = cv2.imencode(path[path.rindex("."):], cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                           [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    with atomic_write(path) as temporary, open(temporary, "wb") as file:  # cv2.imwrite does not report why it failed
        file.write(data.tobytes())


def fit(image: np.ndarray, boxes: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale an image (h, w, 3) uint8 and its boxes (n, 4) to the largest size within width x height, keeping the aspect ratio."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return resized, np.asarray(boxes, np.float64).reshape(-1, 4) * (np.array(size * 2) / ([*image.shape[1::-1]] * 2))


def contact_sheet(images: list[np.ndarray], captions: list[list[str]], columns: int, fonts: Sequence[str] = ()) -> np.ndarray:
    """Return a contact sheet: images in rows of `columns`, each with its caption below.

    Args:
        images: (h, w, 3) uint8 RGB each. They are not scaled.
        captions: lines of text for each image. Characters that no font has become question marks.
        columns: number of images per row.
        fonts: paths of font files, see `find_fonts`.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    columns = min(columns, len(images))
    width = max(image.shape[1] for image in images)
    cells = [_cell(image, lines, width, fonts) for image, lines in zip(images, captions)]
    rows = [cells[start:start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    sheet = np.full((sum(heights) + GAP * (len(rows) + 1), width * columns + GAP * (columns + 1), 3), BACKGROUND, np.uint8)
    top = GAP
    for row, height in zip(rows, heights):
        for number, cell in enumerate(row):
            left = GAP + number * (width + GAP)
            sheet[top:top + cell.shape[0], left:left + width] = cell
        top += height + GAP
    return sheet


def _cell(image, lines, width, fonts):
    """Return an area of the given width with an image at the left and its caption below."""
    ascii_only = ["".join(part if part.isascii() and part.isprintable() else "?" for part in line) for line in lines]
    texts = [fit_text(drawable(line, plain, fonts), "", width, LETTERS, fonts) for line, plain in zip(lines, ascii_only)]
    top = image.shape[0]
    cell = np.full((top + sum(text.height for text in texts), width, 3), BACKGROUND, np.uint8)
    cell[:top, :image.shape[1]] = image
    for text in texts:
        text.draw(cell, 0, top, CAPTION, BACKGROUND)
        top += text.height
    return cell


def write_samples(folder: str, dataset: CocoDataset, results: list[dict], fonts: Sequence[str] = ()) -> None:
    """Draw up to SAMPLES images, evenly spread over the data set, to <folder>/samples/<image id>.jpg.

    Annotated boxes are on the left, detections with scores >= MIN_SCORE on the right. Samples of earlier evaluations are removed.
    Unreadable images are left out. `results` are detections in COCO's result format, and `fonts` are paths of font files for
    class names and file names with non-ASCII characters.

    Raises:
        UserError: the images cannot be written, for example because the disk is full.
    """
    folder = make_folder(os.path.join(folder, "samples"))
    chosen = np.unique(np.linspace(0, len(dataset.records) - 1, SAMPLES).round().astype(int))
    rows_of: dict = {dataset.records[number].image_id: [] for number in chosen}
    for row in results:
        if row["score"] >= MIN_SCORE and row["image_id"] in rows_of:
            rows_of[row["image_id"]].append(row)
    written = set()
    with writing_into(folder, "the samples"):
        for record in (dataset.records[number] for number in chosen):
            try:
                image = read_image(record.path, (record.height, record.width))
            except UnreadableImageError:
                continue  # the evaluation has logged it
            path = os.path.join(folder, f"{record.image_id}.jpg")
            write_image(path, _draw_sample(image, record, rows_of[record.image_id], dataset, fonts))
            written.add(path)
        for path in set(glob.glob(os.path.join(glob.escape(folder), "*.jpg"))).difference(written):
            os.remove(path)


def _draw_sample(image: np.ndarray, record: Record, rows: list[dict], dataset: CocoDataset, fonts: Sequence[str]) -> np.ndarray:
    """Return one image with its annotated boxes next to the same image with its detections, (H, W, 3) uint8 RGB."""
    found = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    found[:, 2:] += found[:, :2]
    count = len(record.boxes)
    scaled, boxes = fit(image, np.concatenate([record.boxes, found]), SIDE, SIDE)
    annotated = draw_boxes(scaled, boxes[:count], None, record.labels, dataset.names, fonts)
    detected = draw_boxes(scaled, boxes[count:], [row["score"] for row in rows],
                          [dataset.category_ids.index(row["category_id"]) for row in rows], dataset.names, fonts)
    name = os.path.basename(record.path)
    return contact_sheet([annotated, detected], [[f"{name} (id {record.image_id}): {count} annotated"],
                                                 [f"{len(rows)} detected with a score of {MIN_SCORE} or more"]], 2, fonts)
