"""Finds font files that have the characters of class names in any script."""
from __future__ import annotations

import contextlib
import logging
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence

from PIL import ImageFont

from deploy.drawing import font_for, has_glyphs
from src.errors import UserError, one_line, short_repr

logger = logging.getLogger("faster_rcnn")

NEEDED = "H.0123456789"  # for scores
# Font files with these words in their names are tried last, because their family often has a plain style too. LastResort of macOS
# has a box for every character.
STYLED = re.compile("bold|black|heavy|italic|oblique|light|thin|lastresort", re.IGNORECASE)


def find_fonts(names: list[str], path: str) -> list[str]:
    """Return the paths of the fonts that are needed to draw all names. A warning lists the names that no font can draw.

    Args:
        names: class names.
        path: path of the preferred font (the configuration's `font`); empty: matplotlib's DejaVu Sans is preferred.

    Returns:
        the preferred font, followed by other fonts for the names that it cannot draw.

    Raises:
        UserError: `path` is not a usable font.
    """
    from matplotlib import get_data_path  # imported here because it is slow and needed only for drawings
    from matplotlib.font_manager import findSystemFonts

    bundled = os.path.join(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    fonts = [os.path.expanduser(path) or bundled]
    try:
        if not has_glyphs(fonts[0], NEEDED):
            raise ValueError("it has no digits")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(str(error))
        raise UserError(f"font is {path!r}, which cannot be used ({reason}); set it to a .ttf, .otf or .ttc file.") from error
    texts = [unicodedata.normalize("NFC", name) for name in names]
    missing = [text for text in texts if font_for(text, fonts) is None]
    system = sorted(findSystemFonts(), key=lambda path: (bool(STYLED.search(os.path.basename(path))), path)) if missing else []
    for font in (bundled, *system):
        with contextlib.suppress(OSError, ValueError):  # unusable system fonts, for which the user did not ask
            left = [text for text in missing if not has_glyphs(font, text)]
            if left != missing and has_glyphs(font, NEEDED):
                fonts.append(font)
                missing = left
    if missing:
        logger.warning("no font has all characters of the class names %s: they are drawn without accents or as class 0, class 1, "
                       "...; set the key font to a .ttf, .otf or .ttc file with them", short_repr(missing))
    return fonts


@contextlib.contextmanager
def fonts_of_charts(fonts: Sequence[str]) -> Iterator[None]:
    """In this context, matplotlib uses these fonts for characters that its default font lacks."""
    from matplotlib import font_manager, rc_context, rcParams

    for font in fonts:
        font_manager.fontManager.addfont(font)
    families = [ImageFont.truetype(font).getname()[0] for font in fonts]
    with rc_context({"font.family": [*rcParams["font.family"], *families]}):
        yield
