"""src/visualization/fonts.py and deploy/drawing.py: names in any script."""
import logging
import shutil
import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image, ImageDraw

from deploy.drawing import Text, draw_boxes, drawable, has_glyphs, scaled_font
from src.errors import UserError
from src.visualization.charts import draw_precision_recall
from src.visualization.fonts import find_fonts, fonts_of_charts
from src.visualization.images import BACKGROUND, contact_sheet

pytestmark = pytest.mark.filterwarnings("error")
BUNDLED = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
MONO, STIX = BUNDLED / "DejaVuSansMono.ttf", BUNDLED / "STIXGeneral.ttf"
NAMES = ["круг", "груг", "άνθρωπος", "ἄνθρωπος", "Fußgänger", "café", "cafè", "سيارة", "سياره", "خانه\u200cها", "ĄḜǺỵ", "ÅÇ"]
CIRCLED = "Ⓐⓑ"  # in STIX, but not in DejaVu


@pytest.fixture(scope="module")
def fonts():
    return find_fonts([], "")


def boxes(name, fonts):
    return draw_boxes(np.full((480, 640, 3), 128, np.uint8), [[100, 200, 500, 400]], [0.5], [3], ["", "", "", name], fonts)


def test_different_names_look_different(fonts):
    pictures = [boxes(name, fonts).tobytes() for name in [*NAMES, "cafe", "class 3"]]
    assert len(set(pictures)) == len(NAMES) + 2


@pytest.mark.parametrize("letters", [10, 80])
@pytest.mark.parametrize("name", [*NAMES, "g͎̊̂", "\u0eb3ж"])
def test_text_is_within_its_size(name, letters, fonts):
    """All pixels that Pillow draws on a large image, with a margin around."""
    text = Text(name, letters, fonts)
    image = np.zeros((text.height + 80, text.width + 80, 3), np.uint8)
    text.draw(image, 40, 40, (255, 255, 255), (0, 0, 0))
    ink = image.max(axis=2) > 40
    whole = Image.new("L", (80 * letters, 80 * letters))
    ImageDraw.Draw(whole).text((40 * letters,) * 2, name, fill=255, font=scaled_font(fonts[0], letters), anchor="ls")
    assert ink[41:39 + text.height, 41:39 + text.width].sum() == ink.sum() == (np.asarray(whole) > 40).sum() > 3 * letters


def test_the_given_font_is_used():
    """In MONO all letters have the same width."""
    assert find_fonts(["щі"], str(MONO)) == [str(MONO)]
    widths = [[Text(text, 40, find_fonts(["щі"], path)).width for text in ("щщщщ", "іііі")] for path in (str(MONO), "")]
    assert abs(widths[0][0] - widths[0][1]) < 10 < widths[1][0] - widths[1][1]


def test_a_system_font_has_characters_that_the_first_font_lacks(tmp_path, monkeypatch):
    """A plain font is preferred to a bold one."""
    for name in ("stix.ttf", "STIX-Bold.ttf"):
        shutil.copy(STIX, tmp_path / name)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(font_manager, "X11FontDirectories", [str(tmp_path)])
    fonts = find_fonts(["круг", CIRCLED, "dog"], "")
    assert len(fonts) == 2 and fonts[1] == str(tmp_path / "stix.ttf")
    assert drawable(CIRCLED, "class 3", fonts) == CIRCLED and (boxes(CIRCLED, fonts) != boxes("class 3", fonts)).any()
    assert len(find_fonts(["круг", "dog"], "")) == 1


@pytest.mark.parametrize(("contents", "reason"), [
    (None, "cannot open resource|No such file or directory"), (b"no font", "unknown file format"), (b"", ""),
    ((BUNDLED / "STIXSizOneSymReg.ttf").read_bytes(), "it has no digits")])
def test_a_file_that_is_no_font(tmp_path, contents, reason):
    path = tmp_path / "a.ttf"
    if contents is not None:
        path.write_bytes(contents)
    sentence = rf"font is '{path}', which cannot be used \(.*({reason})\); set it to a .ttf, .otf or .ttc file"
    with pytest.raises(UserError, match=sentence):
        find_fonts(["dog"], str(path))


def test_names_that_no_font_has_are_logged_once(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("faster_rcnn"), "propagate", True)  # lets pytest capture the log
    monkeypatch.setenv("MPL_IGNORE_SYSTEM_FONTS", "1")
    fonts = find_fonts(["круг", "行人", "dog", "ö行"], "")
    [record] = caplog.records
    assert "['行人', 'ö行']" in record.getMessage() and "set the key font" in record.getMessage()
    assert [drawable(name, "class 3", fonts) for name in ("行人", "круг", "dog", "Ö")] == ["class 3", "круг", "dog", "Ö"]
    assert (boxes("行人", fonts) == boxes("class 3", fonts)).all() and len(caplog.records) == 1


def test_combining_accents(fonts):
    name = "école Йё"
    decomposed = unicodedata.normalize("NFD", name)
    assert decomposed != name == drawable(decomposed, "", fonts) and (boxes(decomposed, fonts) == boxes(name, fonts)).all()


@pytest.mark.parametrize(("name", "text", "with_fonts"), [
    ("traffic light", "traffic light", "traffic light"), ("Fußgänger", "class 7", "Fußgänger"), ("café", "cafe", "café"),
    *[(name, "class 7", "class 7") for name in ("行人", " ", "", "a\n", "\u00a0", "\u3000", "ж\u2029", "a\nж", "ж\udc80")]])
def test_names_that_cannot_be_drawn(name, text, with_fonts, fonts):
    """Without fonts, only ASCII can be drawn. Invisible names never are."""
    assert drawable(name, "class 7") == text and drawable(name, "class 7", fonts) == with_fonts


def test_glyphs_are_those_of_the_font():
    """Compared with the character map that FreeType reads, for characters that are not composed of others."""
    for path in (MONO, STIX):
        known = font_manager.get_font(str(path)).get_charmap()
        for character in map(chr, [*range(0x21, 0x7f), *range(0x3b1, 0x460), 0x24b6, 0x4eba]):
            if not unicodedata.decomposition(character):
                assert has_glyphs(str(path), character) == (ord(character) in known), hex(ord(character))


def test_captions(fonts):
    image = np.zeros((50, 400, 3), np.uint8)
    sheets = [contact_sheet([image], [["ASCII", text]], 1, fonts) for text in ("фото.jpg", "ф0т0.jpg", "行人.jpg", "??.jpg")]
    assert (sheets[0][70:] != sheets[1][70:]).any() and (sheets[2] == sheets[3]).all()
    high = contact_sheet([image], [["ĄḜǺ", "g͎ ỵ"]], 1, fonts)
    assert (high[-11:] == BACKGROUND).all() and (high[-40:-11] != BACKGROUND).any()


def test_charts_take_missing_characters_from_the_fonts(tmp_path):
    """matplotlib warns about missing characters, and warnings are errors here."""
    content = np.linspace(0, 1, 101), np.full((2, 101, 1), 0.5), [CIRCLED]
    with pytest.raises(UserWarning, match="missing from"):
        draw_precision_recall(str(tmp_path / "a.png"), *content)
    with fonts_of_charts(find_fonts([], str(STIX))):
        draw_precision_recall(str(tmp_path / "a.png"), *content)
