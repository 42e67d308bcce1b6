"""Text on images: ASCII in a font of OpenCV, which has no other characters, and the rest in TrueType fonts."""
from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from src.visualization.font import Font, font_of, scaled_font

FONT = cv2.FONT_HERSHEY_DUPLEX
CAPITAL = 22  # height in pixels of a capital letter at scale 1
MIN_TEXT_HEIGHT = 10  # height in pixels of a capital letter that can still be read
LETTERS_IN_STROKE = 12  # height of a capital letter divided by the width of its stroke


def plain_text(name: str, label: int) -> str:
    """The name of a class in ASCII, without accents; `class 3` for the label 3 where that is not possible."""
    text = unicodedata.normalize("NFKD", name)
    text = "".join(character for character in text if not unicodedata.combining(character))
    return text if text.isascii() and text.isprintable() and text.strip() else f"class {label}"


def class_text(name: str, label: int, fonts: Sequence[Font]) -> str:
    """The name of a class as it is drawn: whole where OpenCV's font or one of `fonts` has its characters, else `plain_text`."""
    return unicodedata.normalize("NFC", name) if font_of(name, fonts) else plain_text(name, label)


def shortened(text: str, length: int) -> str:
    """`text`, cut to `length` characters that end with two dots where it is longer."""
    return text if len(text) <= length else text[:max(length - 2, 1)] + ".."


def fitted(text: str, ending: str, width: int, largest: int, fonts: Sequence[Font] = ()) -> tuple[str, int]:
    """`text` + `ending`, and the height of its capital letters in pixels.

    That is `largest`; where it would be wider than `width` pixels, letters are smaller, then `text` is cut.
    """
    for letters in range(largest, MIN_TEXT_HEIGHT - 1, -1):
        if text_size(text + ending, letters, fonts)[0] <= width:
            return text + ending, letters
    length = len(text)
    while length > 1 and text_size(shortened(text, length) + ending, MIN_TEXT_HEIGHT, fonts)[0] > width:
        length -= 1
    return shortened(text, length) + ending, MIN_TEXT_HEIGHT


def text_size(text: str, letters: int, fonts: Sequence[Font] = ()) -> tuple[int, int]:
    """Width and height in pixels of `text` with a margin, its capital letters `letters` pixels high."""
    left, top, right, bottom = _ink(text, letters, fonts)
    return right - left + 2 * _margin(letters), bottom - top + 2 * _margin(letters)


def draw_text(image: np.ndarray, text: str, left: int, top: int, letters: int, colour: tuple[int, int, int],
              fonts: Sequence[Font] = ()) -> None:
    """Write onto the image (h, w, 3) uint8, in place; left, top: corner of the area whose size `text_size` gives."""
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
    """Left, top, right and bottom of a text in pixels from where its base line begins.

    There is always room for a capital letter, and below for letters such as g; accents and other scripts may need more.
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
