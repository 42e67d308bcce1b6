"""Finds TrueType fonts for text that OpenCV's ASCII-only font cannot draw."""
from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import ImageFont

from src.errors import UserError, is_printable, one_line, short_repr

logger = logging.getLogger("faster_rcnn")

NEEDED = frozenset(map(ord, " .H0123456789"))  # for scores and shortened names, and H to measure a capital letter
# Font files with these words in their names are tried last, because their family often has a plain style too. LastResort of macOS
# has a box for every character.
STYLED = re.compile("bold|black|heavy|italic|oblique|light|thin|lastresort", re.IGNORECASE)
MEASURED = 200  # size in pixels at which a font's capital letters are measured


class Font(NamedTuple):
    """A scalable font."""
    path: str
    family: str
    characters: frozenset  # supported code points
    capital: float  # height of a capital letter in pixels at the size MEASURED


def find_fonts(names: list[str], path: str) -> list[Font]:
    """Return the fonts that are needed to draw all names. A warning lists the names that no font on the system can draw.

    Args:
        names: class names.
        path: path of the preferred font (the configuration's `font`); empty: matplotlib's bundled font is preferred.

    Returns:
        the preferred font, followed by other fonts for the names that it cannot draw.

    Raises:
        UserError: `path` is not a usable font.
    """
    fonts = [_given_font(path) if path else _read_font(_bundled_font())]
    missing = _not_in(fonts, names)
    others = _other_fonts()  # lazy: each file is read only when needed
    while missing and (font := next(others, None)):
        left = _not_in([font], missing)
        if left != missing:
            fonts.append(font)
            missing = left
    if missing:
        logger.warning("no font has all characters of the class names %s: they are drawn without accents or as class 0, class 1, "
                       "...; set the key font to a .ttf, .otf or .ttc file with them", short_repr(missing))
    return fonts


def font_of(text: str, fonts: Sequence[Font]) -> Font | None:
    """Return the first font with all characters of the text, or None if there is none. ASCII needs no font and returns None."""
    text = unicodedata.normalize("NFC", text)
    if text.isascii() or not text.strip() or not is_printable(text):
        return None
    return next((font for font in fonts if font.characters.issuperset(map(ord, text))), None)


@functools.lru_cache(maxsize=256)
def scaled_font(font: Font, letters: int) -> ImageFont.FreeTypeFont:
    """Return the font in the size at which capital letters are `letters` pixels high."""
    return ImageFont.truetype(font.path, max(1, round(MEASURED * letters / font.capital)))


@contextlib.contextmanager
def fonts_of_charts(fonts: Sequence[Font]) -> Iterator[None]:
    """In this context, matplotlib uses these fonts for characters that its default font lacks."""
    from matplotlib import font_manager, rc_context, rcParams

    for font in fonts:
        font_manager.fontManager.addfont(font.path)
    with rc_context({"font.family": [*rcParams["font.family"], *(font.family for font in fonts)]}):
        yield


def _not_in(fonts, names):
    return [name for name in names if not name.isascii() and not font_of(name, fonts)]


def _given_font(path):
    try:
        return _read_font(os.path.expanduser(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(str(error))
        raise UserError(f"font is {path!r}, which cannot be used ({reason}); give a .ttf, .otf or .ttc file.") from error


def _read_font(path):
    """Read a font file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not a font, is not scalable, or lacks one of the NEEDED characters.
    """
    from matplotlib.ft2font import FT2Font  # imported here because it is slow and needed only for drawings

    try:
        font = FT2Font(path)
    except RuntimeError as error:
        raise ValueError("it is no font") from error
    characters = frozenset(font.get_charmap())
    if not font.scalable or not characters >= NEEDED:
        raise ValueError("it has no outlines or no digits")
    capital = -ImageFont.truetype(path, MEASURED).getbbox("H", anchor="ls")[1]
    if capital <= 0:
        raise ValueError("its letters are empty")
    return Font(path, font.family_name, characters, capital)


def _other_fonts():
    """Yield matplotlib's bundled font, then the system's fonts in a deterministic order, plain styles first."""
    from matplotlib.font_manager import findSystemFonts

    found = sorted(findSystemFonts(), key=lambda path: (bool(STYLED.search(os.path.basename(path))), path))
    for path in [_bundled_font(), *found]:
        # Skip unusable system fonts silently, because the user did not ask for them.
        with contextlib.suppress(OSError, ValueError):
            yield _read_font(path)


def _bundled_font():
    from matplotlib import get_data_path

    return os.path.join(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
