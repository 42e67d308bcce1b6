"""Text on images, in the font that OpenCV brings, which has the characters of ASCII alone."""
import unicodedata

import cv2

FONT = cv2.FONT_HERSHEY_DUPLEX
CAPITAL = 22  # pixels from the top of a capital letter to its foot, at scale 1
MIN_TEXT_HEIGHT = 10  # pixels of a capital letter that can still be read
LETTERS_IN_STROKE = 12


def plain_text(name, label):
    """A class's name in ASCII, without accents; `class 3` for the label 3 where a character has no such form."""
    text = unicodedata.normalize("NFKD", name)
    text = "".join(character for character in text if not unicodedata.combining(character))
    return text if text.isascii() and text.isprintable() and text.strip() else f"class {label}"


def shortened(text, length):
    """`text` with at most `length` characters, of which the last are dots where it was longer."""
    return text if len(text) <= length else text[:max(length - 2, 1)] + ".."


def text_size(text, letters):
    """(width, height) in pixels of `text` with a margin around, its capital letters `letters` pixels high."""
    (width, _), _ = cv2.getTextSize(text, FONT, letters / CAPITAL, _stroke(letters))
    return width + 2 * _margin(letters), letters + _descent(letters) + 2 * _margin(letters)


def draw_text(image, text, left, top, letters, colour):
    """Write onto the image (h, w, 3) uint8; `left` and `top` are those of the area that `text_size` tells."""
    foot = left + _margin(letters), top + _margin(letters) + letters
    cv2.putText(image, text, foot, FONT, letters / CAPITAL, colour, _stroke(letters), cv2.LINE_AA)


def _margin(letters):
    return max(2, letters // 4)


def _descent(letters):
    return letters // 4  # of letters such as g


def _stroke(letters):
    return max(1, round(letters / LETTERS_IN_STROKE))
