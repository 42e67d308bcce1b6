"""Draws boxes with names and scores on images, as infer.py does, with OpenCV's font. Names with non-ASCII characters lose their
accents, or become `class 7`."""
from __future__ import annotations

import functools
import unicodedata

import cv2
import numpy as np

SHORT_SIDE, LONG_SIDE, MAX_SIDE = 96, 480, 4096  # small images are enlarged to these sides in pixels
FONT, CAPITAL, MIN_LETTERS = cv2.FONT_HERSHEY_DUPLEX, 22, 10  # height of a capital letter at scale 1, and its legible minimum


def draw(image: np.ndarray, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, names: list[str]) -> np.ndarray:
    """Draw boxes (n, 4) xyxy with labels (n,) and scores (n,) on a copy of an image (h, w, 3) uint8 RGB, and return it. The first
    boxes are drawn over later boxes. A small image is enlarged by an integer factor."""
    short, long = sorted(image.shape[:2])
    factor = max(1, min(max(-(-SHORT_SIDE // short), -(-LONG_SIDE // long)), MAX_SIDE // long))
    image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) if factor > 1 else image.copy()
    height, width = image.shape[:2]
    side = (height * width) ** 0.5
    line, largest = max(2, round(side / 280)), max(MIN_LETTERS, round(side / 50))
    limits = np.array([width, height] * 2) - 1 - line // 2
    corners = np.maximum(np.minimum(np.round(np.asarray(boxes, np.float64) * factor), limits), line // 2).astype(int).tolist()
    tags: list[tuple] = []
    for box, score, label in zip(corners, scores, labels):
        text, letters = _fitted(plain(names[label], label), f" {score:.2f}", width, largest)
        size = _text_size(text, letters)
        tags.append((*_free_place(box, size, line, (height, width), tags), *size, text, letters, palette()[label % 256]))
    for (left, top, right, bottom), tag in zip(corners[::-1], tags[::-1]):
        cv2.rectangle(image, (left, top), (right, bottom), tag[6], line)
    for left, top, wide, high, text, letters, colour in tags[::-1]:
        image[max(top, 0):top + high, max(left, 0):left + wide] = colour
        foot = left + _margin(letters), top + _margin(letters) + letters
        cv2.putText(image, text, foot, FONT, letters / CAPITAL, _contrast(colour), max(1, round(letters / 12)), cv2.LINE_AA)
    return image


def plain(name: str, label: int) -> str:
    """Return the name in ASCII, without accents, or `class 7` for label 7 if that is not possible."""
    text = "".join(part for part in unicodedata.normalize("NFKD", name) if not unicodedata.combining(part))
    return text if text.isascii() and text.isprintable() and text.strip() else f"class {label}"


def _fitted(text, score, width, largest):
    """Return the text of a tag and the height of its letters. They are reduced, then the text is cut, to fit into the image."""
    for letters in range(largest, MIN_LETTERS - 1, -1):
        if _text_size(text + score, letters)[0] <= width:
            return text + score, letters
    length = len(text)
    while length > 1 and _text_size(_cut(text, length) + score, MIN_LETTERS)[0] > width:
        length -= 1
    return _cut(text, length) + score, MIN_LETTERS


def _cut(text, length):
    return text if len(text) <= length else text[:max(length - 2, 1)] + ".."


def _margin(letters):
    return max(2, letters // 4)


def _text_size(text, letters):
    wide = cv2.getTextSize(text, FONT, letters / CAPITAL, max(1, round(letters / 12)))[0][0]
    return wide + 2 * _margin(letters), letters + letters // 4 + 2 * _margin(letters)


def _free_place(box, size, line, shape, others):
    """Return (left, top) of a tag: at a corner of its box, inside the image, and if possible not over other tags."""
    (wide, high), (left, top, right, bottom), outer = size, box, line // 2
    places = [(x, y) for y in (top - outer - high, bottom + outer + 1, top + outer, bottom - outer - high + 1)
              for x in (left - outer, right + outer + 1 - wide)]
    inside = [place for place in places if 0 <= place[1] <= shape[0] - high] or places[:1]
    inside = [(max(0, min(x, shape[1] - wide)), max(0, min(y, shape[0] - high))) for x, y in inside]
    return next(((x, y) for x, y in inside if not any(
        x < other[0] + other[2] and other[0] < x + wide and y < other[1] + other[3] and other[1] < y + high
        for other in others)), inside[0])


def _contrast(colour):
    """Return black or white, by the contrast ratio of WCAG 2."""
    linear = [(part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4) for part in colour]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return (0, 0, 0) if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else (255, 255, 255)


@functools.lru_cache(maxsize=1)
def palette() -> list[tuple[int, int, int]]:
    """Return 256 colours, chosen by farthest-point sampling in CIELAB among vivid colours."""
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    tried = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    places = _lab(tried)
    vivid = (places[:, 0] >= 85) & (places[:, 0] <= 215) & (np.linalg.norm(places[:, 1:] - 128, axis=1) >= 35)
    tried, places = tried[vivid], places[vivid]
    chosen, nearest = [(221, 51, 34)], np.full(len(tried), np.inf)
    while len(chosen) < 256:
        nearest = np.minimum(nearest, np.linalg.norm(places - _lab([chosen[-1]]), axis=1))
        chosen.append(tuple(tried[nearest.argmax()].tolist()))
    return chosen


def _lab(colours):
    return cv2.cvtColor(np.array(colours, np.uint8)[None], cv2.COLOR_RGB2LAB)[0].astype(np.float64)
