"""Draws boxes with names and scores, legible on images of any size."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from src.visualization.colours import colour_of, text_colour
from src.visualization.font import Font
from src.visualization.text import MIN_TEXT_HEIGHT, class_text, draw_text, fitted, text_size

# Small images are enlarged until their sides reach these lengths in pixels, but not beyond MAX_SIDE.
SHORT_SIDE, LONG_SIDE = 96, 480
MAX_SIDE = 4096
MIN_LINE_WIDTH = 2
# The line width and the height of a capital letter are the square root of the image area divided by these numbers.
LINES, LETTERS = 280, 50


class Label(NamedTuple):
    """The label of a box: its text, and the upper left corner and size of its background in pixels."""
    left: int
    top: int
    width: int
    height: int
    text: str
    letters: int  # height of a capital letter, in pixels
    colour: tuple


def draw_boxes(image: np.ndarray, boxes: np.ndarray, labels: Sequence[int] | np.ndarray, names: list[str],
               scores: Sequence[float] | np.ndarray | None = None, fonts: Sequence[Font] = ()) -> np.ndarray:
    """Draw boxes with class names and optional scores.

    Small images are first enlarged by an integer factor, see `enlargement`. Lines and letters scale with the image. Boxes that
    come first are drawn over later boxes.

    Args:
        image: (h, w, 3) uint8 RGB. It is not changed.
        boxes: (n, 4) xyxy in pixels of the image.
        labels: (n,) int, 0..K-1.
        names: names of the K classes.
        scores: (n,), 0 to 1, or None.
        fonts: fonts for names with non-ASCII characters, see src.visualization.font.find_fonts.

    Returns:
        (H, W, 3) uint8 RGB, where H and W are the same multiple of h and w.
    """
    factor = enlargement(image.shape)
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) if factor > 1 else image.copy()
    side = (image.shape[0] * image.shape[1]) ** 0.5
    width, largest = max(MIN_LINE_WIDTH, round(side / LINES)), max(MIN_TEXT_HEIGHT, round(side / LETTERS))
    corners = [_corners(box, width, image.shape) for box in np.asarray(boxes, np.float64).reshape(-1, 4) * factor]
    drawn: list[Label] = []
    for number, (box, label) in enumerate(zip(corners, map(int, labels))):
        score = "" if scores is None else f" {float(scores[number]):.2f}"
        text, letters = fitted(class_text(names[label], label, fonts), score, image.shape[1], largest, fonts)
        size = text_size(text, letters, fonts)
        left, top = _free_place(box, size, width, image.shape, drawn)
        drawn.append(Label(left, top, *size, text, letters, colour_of(label)))
    for (left, top, right, bottom), tag in reversed(list(zip(corners, drawn))):
        cv2.rectangle(image, (left, top), (right, bottom), tag.colour, width)
    for tag in reversed(drawn):
        image[max(tag.top, 0):tag.top + tag.height, max(tag.left, 0):tag.left + tag.width] = tag.colour
        draw_text(image, tag.text, tag.left, tag.top, tag.letters, text_colour(tag.colour), fonts)
    return image


def enlargement(shape: tuple) -> int:
    """Return the factor by which an image of shape (h, w, ...) is enlarged before boxes are drawn."""
    short, long = sorted(shape[:2])
    wanted = max(-(-SHORT_SIDE // short), -(-LONG_SIDE // long))
    return max(1, min(wanted, MAX_SIDE // long))


def _corners(box, width, shape):
    """Return the box (x1, y1, x2, y2) in whole pixels, shifted so that its line is inside the image."""
    margin = width // 2
    limits = np.array([shape[1], shape[0]] * 2) - 1 - margin
    return [int(value) for value in np.maximum(np.minimum(np.round(box), limits), margin)]


def _free_place(box, size, line, shape, others):
    """Return (left, top) of a label: at a corner of its box, inside the image, and if possible not over other labels."""
    width, height = size
    left, top, right, bottom = box
    outer = line // 2
    lefts = left - outer, right + outer + 1 - width
    tops = top - outer - height, bottom + outer + 1, top + outer, bottom - outer - height + 1
    # The first choice is above the upper left corner of the box.
    places = [(x, y) for y in tops for x in lefts]
    inside = [_moved_inside(x, y, size, shape) for x, y in places if 0 <= y <= shape[0] - height]
    inside = inside or [_moved_inside(*places[0], size, shape)]
    return next((place for place in inside if not any(_overlap(place, size, other) for other in others)), inside[0])


def _moved_inside(x, y, size, shape):
    return max(0, min(x, shape[1] - size[0])), max(0, min(y, shape[0] - size[1]))


def _overlap(place, size, other):
    return (place[0] < other.left + other.width and other.left < place[0] + size[0]
            and place[1] < other.top + other.height and other.top < place[1] + size[1])
