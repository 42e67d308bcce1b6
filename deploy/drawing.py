"""Draws boxes with class names and scores, legible on images of any size. Pillow renders the text."""
from __future__ import annotations

import functools
import itertools
import math
import unicodedata
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

SHORT_SIDE, LONG_SIDE, MAX_SIDE = 96, 480, 4096  # small images are enlarged to these sides in pixels, at most to MAX_SIDE
MIN_LETTERS = 10  # smallest legible height of a capital letter in pixels
COLOURS = 256  # label 256 has the colour of label 0 again


def draw_boxes(image: np.ndarray, boxes: np.ndarray, scores: Sequence[float] | np.ndarray | None,
               labels: Sequence[int] | np.ndarray, names: list[str], fonts: Sequence[str] = ()) -> np.ndarray:
    """Return a copy of an image with boxes, class names and optional scores, (H, W, 3) uint8 RGB. Small images are first enlarged
    by an integer factor. Lines and letters scale with the image. The first boxes are drawn over later boxes.

    Args:
        image: (h, w, 3) uint8 RGB; boxes: (n, 4) xyxy in pixels of the image; scores: (n,), 0 to 1, or None.
        labels: (n,) int, 0..K-1; names: names of the K classes; fonts: paths of font files, see `font_for`.
    """
    factor = enlargement(image.shape)
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) if factor > 1 else image.copy()
    height, width = image.shape[:2]
    side = (height * width) ** 0.5
    line, largest = max(2, round(side / 280)), max(MIN_LETTERS, round(side / 50))
    limits = np.array([width, height] * 2) - 1 - line // 2  # the whole line is inside the image
    corners = np.round(np.asarray(boxes, np.float64).reshape(-1, 4) * factor)
    corners = np.maximum(np.minimum(corners, limits), line // 2).astype(int).tolist()
    tags: list[tuple] = []  # (left, top, right, bottom), text and colour of each box's label
    for number, (box, label) in enumerate(zip(corners, map(int, labels))):
        score = "" if scores is None else f" {float(scores[number]):.2f}"
        text = fit_text(drawable(names[label], f"class {label}", fonts), score, width, largest, fonts)
        tags.append((_free_place(box, text, line, (height, width), [other for other, *_ in tags]), text, colour_of(label)))
    for (left, top, right, bottom), (*_, colour) in zip(corners[::-1], tags[::-1]):
        cv2.rectangle(image, (left, top), (right, bottom), colour, line)
    for (left, top, *_), text, colour in tags[::-1]:
        text.draw(image, left, top, text_colour(colour), colour)
    return image


def enlargement(shape: tuple[int, ...]) -> int:
    """Return the factor by which an image of shape (h, w, ...) is enlarged before boxes are drawn."""
    short, long = sorted(shape[:2])
    return max(1, min(max(-(-SHORT_SIDE // short), -(-LONG_SIDE // long)), MAX_SIDE // long))


class Text:
    """A line of text, with capital letters of `letters` pixels, in the first of `fonts` that has all its characters, see
    `font_for`. Its `width` and `height` in pixels include a margin and space for capital letters and descenders, as in g."""

    def __init__(self, text: str, letters: int, fonts: Sequence[str] = ()):
        self.text, self.letters, self.font = text, letters, scaled_font(font_for(text, fonts) or "", letters)
        left, top, right, bottom = self.font.getbbox(text, anchor="ls")
        left, top, margin = math.floor(left), min(math.floor(top), -letters), max(2, letters // 4)
        self.start = margin - left, margin - top  # of the base line
        self.width = math.ceil(right) - left + 2 * margin
        self.height = max(math.ceil(bottom), letters // 4) - top + 2 * margin

    def draw(self, image: np.ndarray, left: int, top: int, colour: tuple[int, ...], background: tuple[int, ...]) -> None:
        """Draw the text and its background on the image (h, w, 3) uint8 in place."""
        area = image[top:top + self.height, left:left + self.width]
        picture = Image.new("RGB", (area.shape[1], area.shape[0]), background)
        ImageDraw.Draw(picture).text(self.start, self.text, fill=colour, font=self.font, anchor="ls")
        area[:] = picture


def fit_text(text: str, ending: str, width: int, largest: int, fonts: Sequence[str] = ()) -> Text:
    """Return `text` + `ending` in `width` pixels: with capital letters of `largest` pixels, or smaller, or with `text` cut."""
    smaller = (Text(text + ending, letters, fonts) for letters in range(largest, MIN_LETTERS - 1, -1))
    shorter = (Text(f"{text[:length]}..{ending}", MIN_LETTERS, fonts) for length in range(len(text) - 3, 0, -1))
    for found in itertools.chain(smaller, shorter):
        if found.width <= width:
            break
    return found


def drawable(text: str, otherwise: str, fonts: Sequence[str] = ()) -> str:
    """Return the text if a font has all its characters; else the text without accents if that is ASCII; else `otherwise`."""
    text = unicodedata.normalize("NFC", text)
    plain = "".join(part for part in unicodedata.normalize("NFKD", text) if not unicodedata.combining(part))
    if not text.strip() or any(unicodedata.category(part) in ("Cc", "Cs", "Zl", "Zp") for part in text):
        return otherwise
    if font_for(text, fonts) is not None:
        return text
    return plain if plain.isascii() and plain.strip() else otherwise


def font_for(text: str, fonts: Sequence[str]) -> str | None:
    """Return the path of the first font with all characters of the text, or None.

    ASCII is drawn with the first font. If `fonts` is empty, this is "", the font in Pillow, which has only ASCII.
    """
    if text.isascii():
        return next(iter(fonts), "")
    return next((font for font in fonts if has_glyphs(font, text)), None)


@functools.lru_cache(maxsize=4096)
def has_glyphs(font: str, text: str) -> bool:
    """Return whether a font file has a glyph for each character of the text. Raise an OSError if the file cannot be read or is no
    scalable font, and a ValueError if the font is damaged."""
    scaled = ImageFont.truetype(font, 20)
    missing = bytes(scaled.getmask("\uffff"))  # drawn for a character without a glyph
    return all(bytes(scaled.getmask(character)) != missing for character in text if not character.isspace())


@functools.lru_cache(maxsize=256)
def scaled_font(path: str, letters: int) -> ImageFont.FreeTypeFont:
    """Return a font in the size at which capital letters are `letters` pixels high. "" is the font in Pillow."""
    load: Any = functools.partial(ImageFont.truetype, path) if path else ImageFont.load_default
    return load(200 * letters / -load(200).getbbox("H", anchor="ls")[1])


def _free_place(box, text, line, shape, others):
    """Return (left, top, right, bottom) of a label: at a corner of its box, inside the image, and if possible not over others."""
    (left, top, right, bottom), (height, width), outer = box, shape, line // 2
    places = [(x, y) for y in (top - outer - text.height, bottom + outer + 1, top + outer, bottom - outer - text.height + 1)
              for x in (left - outer, right + outer + 1 - text.width)]
    inside = [(x, y) for x, y in places if 0 <= y <= height - text.height] or places[:1]
    inside = [(max(0, min(x, width - text.width)), max(0, min(y, height - text.height))) for x, y in inside]
    areas = [(x, y, x + text.width, y + text.height) for x, y in inside]
    return next((area for area in areas if not any(
        area[0] < other[2] and other[0] < area[2] and area[1] < other[3] and other[1] < area[3] for other in others)), areas[0])


def colour_of(label: int) -> tuple[int, int, int]:
    """Return the RGB colour of a class. Every program uses the same colours."""
    return _palette()[label % COLOURS]


def text_colour(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return black or white, whichever has the higher contrast ratio (WCAG 2) with an RGB colour."""
    linear = [part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return (0, 0, 0) if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else (255, 255, 255)


@functools.lru_cache(maxsize=1)
def _palette():
    """Return colours by farthest-point sampling: each is the candidate farthest from all earlier colours in CIELAB.

    Dark, light and grey candidates are excluded, because they look alike as thin lines.
    """
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    tried = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    places = _lab(tried)
    vivid = (places[:, 0] >= 85) & (places[:, 0] <= 215) & (np.linalg.norm(places[:, 1:] - 128, axis=1) >= 35)
    tried, places = tried[vivid], places[vivid]
    chosen, nearest = [(221, 51, 34)], np.full(len(tried), np.inf)
    while len(chosen) < COLOURS:
        nearest = np.minimum(nearest, np.linalg.norm(places - _lab([chosen[-1]]), axis=1))
        chosen.append(tuple(tried[nearest.argmax()].tolist()))
    return chosen


def _lab(colours):
    """Convert RGB colours (n, 3) to OpenCV's 8-bit CIELAB, (n, 3) float64."""
    return cv2.cvtColor(np.array(colours, np.uint8)[None], cv2.COLOR_RGB2LAB)[0].astype(np.float64)
