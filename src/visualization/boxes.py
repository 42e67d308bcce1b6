"""Boxes with names and scores, drawn so that they can be read on images of any size."""
from typing import NamedTuple

import cv2
import numpy as np

from src.visualization.colours import colour_of, text_colour
from src.visualization.text import MIN_TEXT_HEIGHT, draw_text, plain_text, shortened, text_size

SHORT_SIDE, LONG_SIDE = 96, 480  # pixels; images are enlarged until they have both
MAX_SIDE = 4096  # but no further than to this
MIN_LINE_WIDTH = 2
# Square roots of a image's area are so many line widths and capital letters long.
LINES, LETTERS = 280, 50


class Label(NamedTuple):
    """Where a label goes, the left upper corner and size of its background in pixels, and what it says."""
    left: int
    top: int
    width: int
    height: int
    text: str
    letters: int  # height of a capital letter, in pixels
    colour: tuple


def draw_boxes(image, boxes, labels, names, scores=None):
    """Draw boxes, each with its class and, where there are scores, its score.

    Small images are enlarged by a whole number first, see `enlargement`. Lines and letters grow with the image. Of boxes
    that overlap, the first one is drawn last, over the others.

    Args:
        image: (h, w, 3) uint8 RGB, which stays as it is; boxes: (n, 4) xyxy, its pixels; labels: (n,) int, 0..K-1;
        names: list of K str; scores: (n,) from 0 to 1, or None.

    Returns:
        (H, W, 3) uint8 RGB, H and W the same multiple of h and w.
    """
    factor = enlargement(image.shape)
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) if factor > 1 else image.copy()
    width = line_width(image.shape)
    corners = [_corners(box, width, image.shape) for box in np.asarray(boxes, np.float64).reshape(-1, 4) * factor]
    scores = [None] * len(corners) if scores is None else scores
    drawn = []
    for box, label, score in zip(corners, map(int, labels), scores):
        text, letters = _fitted_text(plain_text(names[label], label), score, image.shape)
        drawn.append(Label(*_free_place(box, text_size(text, letters), width, image.shape, drawn), text, letters,
                           colour_of(label)))
    for (left, top, right, bottom), label in reversed(list(zip(corners, drawn))):
        cv2.rectangle(image, (left, top), (right, bottom), label.colour, width)
    for label in reversed(drawn):
        area = image[max(label.top, 0):label.top + label.height, max(label.left, 0):label.left + label.width]
        area[:] = label.colour
        draw_text(image, label.text, label.left, label.top, label.letters, text_colour(label.colour))
    return image


def enlargement(shape):
    """The whole number by which a image of the shape (h, w, ...) is enlarged to be drawn on."""
    short, long = sorted(shape[:2])
    wanted = max(-(-SHORT_SIDE // short), -(-LONG_SIDE // long))
    return max(1, min(wanted, MAX_SIDE // long))


def line_width(shape):
    """Width of a box's line on a image of the shape (h, w, ...), in pixels."""
    return max(MIN_LINE_WIDTH, round((shape[0] * shape[1]) ** 0.5 / LINES))


def letter_height(shape):
    """Height of a label's capital letters on a image of the shape (h, w, ...), in pixels."""
    return max(MIN_TEXT_HEIGHT, round((shape[0] * shape[1]) ** 0.5 / LETTERS))


def _corners(box, width, shape):
    """The box (x1, y1, x2, y2) in whole pixels, so that its whole line is inside of the image."""
    margin = width // 2
    limits = np.array([shape[1], shape[0]] * 2) - 1 - margin
    return [int(value) for value in np.maximum(np.minimum(np.round(box), limits), margin)]


def _fitted_text(name, score, shape):
    """-> text and height of its capital letters: smaller letters, and then less of the name, where the image is narrow."""
    score = "" if score is None else f" {score:.2f}"
    largest = letter_height(shape)
    for letters in range(largest, MIN_TEXT_HEIGHT - 1, -1):
        if text_size(name + score, letters)[0] <= shape[1]:
            return name + score, letters
    for length in range(len(name) - 1, 0, -1):
        text = shortened(name, length) + score
        if text_size(text, MIN_TEXT_HEIGHT)[0] <= shape[1]:
            break
    return text, MIN_TEXT_HEIGHT


def _free_place(box, size, line, shape, others):
    """-> left, top, width, height of a label for the box: at one of its corners, inside of the image, and clear of other
    labels where there is such a place."""
    width, height = size
    left, top, right, bottom = box
    outer = line // 2
    lefts = left - outer, right + outer + 1 - width
    tops = top - outer - height, bottom + outer + 1, top + outer, bottom - outer - height + 1
    # The place outside, above its left corner, comes first.
    places = [(x, y) for y in tops for x in lefts]
    inside = [_moved_inside(x, y, size, shape) for x, y in places if 0 <= y <= shape[0] - height]
    for place in inside:
        if not any(_overlap(place, size, other) for other in others):
            return (*place, *size)
    return (*(inside or [_moved_inside(*places[0], size, shape)])[0], *size)


def _moved_inside(x, y, size, shape):
    return max(0, min(x, shape[1] - size[0])), max(0, min(y, shape[0] - size[1]))


def _overlap(place, size, other):
    return (place[0] < other.left + other.width and other.left < place[0] + size[0]
            and place[1] < other.top + other.height and other.top < place[1] + size[1])
