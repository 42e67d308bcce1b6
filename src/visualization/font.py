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

from src.errors import UserError, is_plain, show

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


def find_fonts(names: list[str], path: str) -> list[Font]:
    """The fonts that are needed to draw all names, of those that are on the system; names that none can draw are logged.

    Args:
        names: of classes.
        path: of a font that precedes all others, the configuration's `font`; empty: matplotlib's own precedes.

    Returns:
        that first font, and others that have the characters of further names.

    Raises:
        UserError: `path` is no font.
    """
    from matplotlib import get_data_path  # here: it takes long, and only programs that draw need it

    own = os.path.join(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    fonts = [_given_font(path) if path else _read_font(own)]
    missing = [name for name in names if not name.isascii() and not font_of(name, fonts)]
    candidates = iter([own, *_system_fonts()]) if missing else iter(())
    while missing and (candidate := next(candidates, None)):
        try:
            font = _read_font(candidate)
        except (OSError, RuntimeError):
            continue  # another program's font, which the user has not asked for
        if any(font_of(name, [font]) for name in missing):
            fonts.append(font)
            missing = [name for name in missing if not font_of(name, [font])]
    if missing:
        logger.warning("no font has all characters of the class names %s, which are drawn without accents or as class 0, class 1, "
                       "...; set the key font to a .ttf, .otf or .ttc file that has them", show(missing))
    return fonts


def font_of(text: str, fonts: Sequence[Font]) -> Font | None:
    """The first font that has all characters of the text; None where none has, and for ASCII, which needs none."""
    text = unicodedata.normalize("NFC", text)
    if text.isascii() or not text.strip() or not is_plain(text):
        return None
    return next((font for font in fonts if font.characters.issuperset(map(ord, text))), None)


@functools.lru_cache(maxsize=256)
def scaled_font(path: str, letters: int) -> ImageFont.FreeTypeFont:
    """The font of a file in the size in which its capital letters are `letters` pixels high."""
    capital = -ImageFont.truetype(path, MEASURED).getbbox("H", anchor="ls")[1]
    return ImageFont.truetype(path, max(1, round(MEASURED * letters / capital)))


@contextlib.contextmanager
def fonts_of_charts(fonts: Sequence[Font]) -> Iterator[None]:
    """Within it, matplotlib takes from these fonts the characters that its own does not have."""
    from matplotlib import font_manager, rc_context, rcParams

    for font in fonts:
        font_manager.fontManager.addfont(font.path)
    with rc_context({"font.family": [*rcParams["font.family"], *(font.family for font in fonts)]}):
        yield


def _given_font(path):
    try:
        font = _read_font(os.path.expanduser(path))
    except OSError as error:
        raise UserError(f"font is {path!r}, which cannot be read ({error.strerror}); give a .ttf, .otf or .ttc file.") from error
    except RuntimeError as error:
        raise UserError(f"font is {path!r}, which is no font that can be read; give a .ttf, .otf or .ttc file.") from error
    if not font.characters:
        raise UserError(f"font is {path!r}, which cannot be scaled or has no digits; give another .ttf, .otf or .ttc file.")
    return font


def _read_font(path):
    """The font of a file; it has no characters where it cannot be scaled or lacks those that all texts need.

    Raises:
        OSError: the file cannot be read.
        RuntimeError: it is no font.
    """
    from matplotlib.ft2font import FT2Font

    font = FT2Font(path)
    characters = frozenset(font.get_charmap() if font.scalable else ())
    return Font(path, font.family_name, characters if characters >= NEEDED else frozenset())


def _system_fonts():
    """Paths of the fonts on the system, plain styles first, in an order that is the same in every run."""
    from matplotlib.font_manager import findSystemFonts

    return sorted(findSystemFonts(), key=lambda path: (bool(STYLED.search(os.path.basename(path))), path))
