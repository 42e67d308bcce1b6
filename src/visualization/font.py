"""TrueType fonts for texts that OpenCV's font, which has ASCII characters only, cannot draw."""
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

from src.errors import UserError, is_plain, one_line, show

logger = logging.getLogger("faster_rcnn")

NEEDED = frozenset(map(ord, " .H0123456789"))  # by scores, by the end of shortened names, and to measure a capital letter
# Parts of file names of fonts that come after all others, for one of them often has a plain style as well. macOS's LastResort
# has a box for every character.
STYLED = re.compile("bold|black|heavy|italic|oblique|light|thin|lastresort", re.IGNORECASE)
MEASURED = 200  # size in pixels at which a font's capital letters are measured


class Font(NamedTuple):
    """A font that can be drawn in any size."""
    path: str
    family: str
    characters: frozenset  # code points that it has
    capital: float  # height in pixels of a capital letter at the size MEASURED


def find_fonts(names: list[str], path: str) -> list[Font]:
    """The fonts that are needed to draw all names, of those on the system; a warning lists the names that none can draw.

    Args:
        names: of classes.
        path: of a font that precedes all others, the configuration's `font`; empty: matplotlib's own precedes.

    Returns:
        that first font, and others that have the characters of further names.

    Raises:
        UserError: `path` is no font.
    """
    fonts = [_given_font(path) if path else _read_font(_bundled_font())]
    missing = _not_in(fonts, names)
    others = _other_fonts()  # a file of these is read only when its turn comes
    while missing and (font := next(others, None)):
        left = _not_in([font], missing)
        if left != missing:
            fonts.append(font)
            missing = left
    if missing:
        logger.warning("no font has all characters of the class names %s: they are drawn without accents or as class 0, class 1, "
                       "...; set the key font to a .ttf, .otf or .ttc file with them", show(missing))
    return fonts


def font_of(text: str, fonts: Sequence[Font]) -> Font | None:
    """The first font that has all characters of the text; None where none has, and for ASCII, which needs none."""
    text = unicodedata.normalize("NFC", text)
    if text.isascii() or not text.strip() or not is_plain(text):
        return None
    return next((font for font in fonts if font.characters.issuperset(map(ord, text))), None)


@functools.lru_cache(maxsize=256)
def scaled_font(font: Font, letters: int) -> ImageFont.FreeTypeFont:
    """The font in the size in which its capital letters are `letters` pixels high."""
    return ImageFont.truetype(font.path, max(1, round(MEASURED * letters / font.capital)))


@contextlib.contextmanager
def fonts_of_charts(fonts: Sequence[Font]) -> Iterator[None]:
    """Within it, matplotlib takes from these fonts the characters that its own does not have."""
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
    """The font of a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no font, cannot be scaled, or lacks characters that all texts need.
    """
    from matplotlib.ft2font import FT2Font  # here: it takes a while, and only drawings need it

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
    """Yield matplotlib's own font and then those of the system, plain styles first, in an order that is always the same."""
    from matplotlib.font_manager import findSystemFonts

    found = sorted(findSystemFonts(), key=lambda path: (bool(STYLED.search(os.path.basename(path))), path))
    for path in [_bundled_font(), *found]:
        # One that cannot be used is another program's, which nobody has asked for.
        with contextlib.suppress(OSError, ValueError):
            yield _read_font(path)


def _bundled_font():
    from matplotlib import get_data_path

    return os.path.join(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
