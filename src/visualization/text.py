"""Draws text on images: ASCII with OpenCV's font, which has no other characters, and other text with TrueType fonts."""
from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from src.visualization.font import Font, font_of, scaled_font

FONT = cv2.FONT_HERSHEY_DUPLEX
CAPITAL = 22  # height of a capital letter in pixels at scale 1
MIN_TEXT_HEIGHT = 10  # smallest legible height of a capital letter in pixels
LETTERS_IN_STROKE = 12  # height of a capital letter divided by the stroke width


def plain_text(name: str, label: int) -> str:
    """Return the class name in ASCII, without accents, or `class 3` for label 3 if that is not possible."""
    text = unicodedata.normalize("NFKD", name)
    text = "".join(character for character in text if not unicodedata.combining(character))
    return text if text.isascii() and text.isprintable() and text.strip() else f"class {label}"


def class_text(name: str, label: int, fonts: Sequence[Font]) -> str:
    """Return the class name as drawn: unchanged if OpenCV's font or one of `fonts` has all its characters, else `plain_text`."""
    return unicodedata.normalize("NFC", name) if font_of(name, fonts) else plain_text(name, label)


def shortened(text: str, length: int) -> str:
    """Return `text`, cut to `length` characters with two dots at the end if it is longer."""
    return text if len(text) <= length else text[:max(length - 2, 1)] + ".."


def fitted(text: str, ending: str, width: int, largest: int, fonts: Sequence[Font] = ()) -> tuple[str, int]:
    """Return `text` + `ending` and the height of its capital letters in pixels, chosen to fit into `width` pixels.

    The height is `largest`, or smaller if the text would be too wide. If the smallest letters do not fit either, `text` is cut.
    """
    for letters in range(largest, MIN_TEXT_HEIGHT - 1, -1):
        if text_size(text + ending, letters, fonts)[0] <= width:
            return text + ending, letters
    length = len(text)
    while length > 1 and text_size(shortened(text, length) + ending, MIN_TEXT_HEIGHT, fonts)[0] > width:
        length -= 1
    return shortened(text, length) + ending, MIN_TEXT_HEIGHT


def text_size(text: str, letters: int, fonts: Sequence[Font] = ()) -> tuple[int, int]:
    """Return width and height in pixels of `text` with a margin, if its capital letters are `letters` pixels high."""
    left, top, right, bottom = _ink(text, letters, fonts)
    return right - left + 2 * _margin(letters), bottom - top + 2 * _margin(letters)


def draw_text(image: np.ndarray, text: str, left: int, top: int, letters: int, colour: tuple[int, int, int],
              fonts: Sequence[Font] = ()) -> None:
    """Draw text on the image (h, w, 3) uint8 in place. `left` and `top` are the corner of the area, see `text_size`."""
    ink = _ink(text, letters, fonts)
    foot = _margin(letters) - ink[0], _margin(letters) - ink[1]
    font = font_of(text, fonts)
    if font is None:
        cv2.putText(image, text, (left + foot[0], top + foot[1]), FONT, letters / CAPITAL, colour, _stroke(letters), cv2.LINE_AA)
        return
    width, height = text_size(text, letters, fonts)
    area = image[top:top + height, left:left + width]
    drawn = Image.fromarray(area)
    ImageDraw.Draw(drawn).text(foot, text, fill=colour, font=scaled_font(font, letters), anchor="ls")
    area[:] = drawn


def _ink(text, letters, fonts):
    """Return left, top, right and bottom of a text in pixels, relative to the start of its base line.

    The area always has space for capital letters and for descenders, as in g. Accents and other scripts may enlarge it.
    """
    top, bottom = -letters, letters // 4
    font = font_of(text, fonts)
    if font is None:
        return 0, top, cv2.getTextSize(text, FONT, letters / CAPITAL, _stroke(letters))[0][0], bottom
    box = scaled_font(font, letters).getbbox(text, anchor="ls")
    return math.floor(box[0]), min(top, math.floor(box[1])), math.ceil(box[2]), max(bottom, math.ceil(box[3]))


def _margin(letters):
    return max(2, letters // 4)


def _stroke(letters):
    return max(1, round(letters / LETTERS_IN_STROKE))
