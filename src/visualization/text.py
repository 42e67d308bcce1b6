"""Text on images, in a font of OpenCV, which has ASCII characters only."""
from __future__ import annotations

import unicodedata

import cv2
import numpy as np

FONT = cv2.FONT_HERSHEY_DUPLEX
CAPITAL = 22  # height in pixels of a capital letter at scale 1
MIN_TEXT_HEIGHT = 10  # height in pixels of a capital letter that can still be read
LETTERS_IN_STROKE = 12  # height of a capital letter divided by the width of its stroke


def plain_text(name: str, label: int) -> str:
    """The name of a class in ASCII, without accents; `class 3` for the label 3 where that is not possible."""
    text = unicodedata.normalize("NFKD", name)
    text = "".join(character for character in text if not unicodedata.combining(character))
    return text if text.isascii() and text.isprintable() and text.strip() else f"class {label}"


def shortened(text: str, length: int) -> str:
    """`text`, cut to `length` characters that end with two dots where it is longer."""
    return text if len(text) <= length else text[:max(length - 2, 1)] + ".."


def fitted(text: str, ending: str, width: int, largest: int) -> tuple[str, int]:
    """`text` + `ending`, and the height of its capital letters in pixels.

    That is `largest`; where it would be wider than `width` pixels, letters are smaller, then `text` is cut.
    """
    for letters in range(largest, MIN_TEXT_HEIGHT - 1, -1):
        if text_size(text + ending, letters)[0] <= width:
            return text + ending, letters
    length = len(text)
    while length > 1 and text_size(shortened(text, length) + ending, MIN_TEXT_HEIGHT)[0] > width:
        length -= 1
    return shortened(text, length) + ending, MIN_TEXT_HEIGHT


def text_size(text: str, letters: int) -> tuple[int, int]:
    """Width and height in pixels of `text` with a margin, its capital letters `letters` pixels high."""
    (width, _), _ = cv2.getTextSize(text, FONT, letters / CAPITAL, _stroke(letters))
    return width + 2 * _margin(letters), letters + letters // 4 + 2 * _margin(letters)  # room below for letters such as g


def draw_text(image: np.ndarray, text: str, left: int, top: int, letters: int, colour: tuple[int, int, int]) -> None:
    """Write onto the image (h, w, 3) uint8, in place; left, top: corner of the area whose size `text_size` gives."""
    foot = left + _margin(letters), top + _margin(letters) + letters
    cv2.putText(image, text, foot, FONT, letters / CAPITAL, colour, _stroke(letters), cv2.LINE_AA)


def _margin(letters):
    return max(2, letters // 4)


def _stroke(letters):
    return max(1, round(letters / LETTERS_IN_STROKE))
