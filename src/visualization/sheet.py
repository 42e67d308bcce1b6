"""Draws contact sheets: several images with captions on one image."""
from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np

from src.visualization.font import Font, font_of
from src.visualization.text import draw_text, fitted, plain_text, text_size

BACKGROUND, CAPTION = (245, 245, 245), (20, 20, 20)
GAP = 10  # pixels between images
LETTERS = 11  # height of a caption's capital letters in pixels


def fit(image: np.ndarray, boxes: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale an image (h, w, 3) uint8 and its boxes (n, 4) to the largest size within width x height, keeping the aspect ratio."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return resized, np.asarray(boxes, np.float64).reshape(-1, 4) * (np.array(size * 2) / ([*image.shape[1::-1]] * 2))


def contact_sheet(images: list[np.ndarray], captions: list[list[str]], columns: int, fonts: Sequence[Font] = ()) -> np.ndarray:
    """Return a contact sheet: images in rows of `columns`, each with its caption below.

    Args:
        images: (h, w, 3) uint8 RGB each. They are not scaled.
        captions: lines of text for each image.
        columns: number of images per row.
        fonts: fonts for captions with non-ASCII characters. If no font has the characters, they become question marks.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    columns = min(columns, len(images))
    cells = [_cell(image, lines, max(other.shape[1] for other in images), fonts) for image, lines in zip(images, captions)]
    rows = [cells[start:start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    width = cells[0].shape[1]
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
    texts = [fitted(_caption(line, fonts), "", width, LETTERS, fonts) for line in lines]
    heights = [max(text_size("", LETTERS)[1], text_size(*text, fonts)[1]) for text in texts]
    top = image.shape[0]
    cell = np.full((top + sum(heights), width, 3), BACKGROUND, np.uint8)
    cell[:top, :image.shape[1]] = image
    for (text, letters), height in zip(texts, heights):
        draw_text(cell, text, 0, top, letters, CAPTION, fonts)
        top += height
    return cell


def _caption(line, fonts):
    """Return the line unchanged if a font can draw it, else in ASCII with question marks."""
    if font_of(line, fonts):
        return unicodedata.normalize("NFC", line)
    return "".join(character if plain_text(character, 0) == character or character == " " else "?" for character in line)
