"""src/visualization/font.py, and its use in text.py, boxes.py and sheet.py: names in any script."""
import logging
import shutil
import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image, ImageDraw

from src.errors import UserError
from src.visualization.boxes import draw_boxes
from src.visualization.font import find_fonts, fonts_of_charts, scaled_font
from src.visualization.precision_recall import draw_precision_recall
from src.visualization.sheet import BACKGROUND, contact_sheet
from src.visualization.text import MIN_TEXT_HEIGHT, class_text, draw_text, fitted, text_size

BUNDLED = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
MONO, STIX = BUNDLED / "DejaVuSansMono.ttf", BUNDLED / "STIXGeneral.ttf"
NAMES = ["круг", "груг", "άνθρωπος", "ἄνθρωπος", "Fußgänger", "café", "cafè", "سيارة", "سياره", "خانه\u200cها", "ĄḜǺỵ", "ÅÇ"]
CIRCLED = "Ⓐⓑ"  # in STIX, but not in DejaVu


@pytest.fixture(autouse=True)
def _log_that_can_be_read(monkeypatch):
    """Let pytest capture the log, also after a test that has started a program."""
    monkeypatch.setattr(logging.getLogger("faster_rcnn"), "propagate", True)


@pytest.fixture
def only_bundled(monkeypatch):
    """Simulate a system without fonts."""
    monkeypatch.setenv("MPL_IGNORE_SYSTEM_FONTS", "1")


@pytest.fixture(scope="module")
def fonts():
    return find_fonts([], "")


def written(text, letters, fonts):
    """Draw on a black image with free space around; returns the mask of ink, and the (left, top) of the text."""
    width, height = text_size(text, letters, fonts)
    image = np.zeros((height + 80, width + 80, 3), np.uint8)
    draw_text(image, text, 40, 40, letters, (255, 255, 255), fonts)
    return image.max(axis=2) > 40, (40, 40)


def boxes(name, fonts):
    return draw_boxes(np.full((480, 640, 3), 128, np.uint8), [[100, 200, 500, 400]], [3], ["", "", "", name], [0.5], fonts)


def test_every_name_has_a_picture_of_its_own(fonts):
    pictures = [boxes(name, fonts).tobytes() for name in [*NAMES, "cafe", "class 3"]]
    assert len(set(pictures)) == len(NAMES) + 2


@pytest.mark.parametrize("letters", [10, 23, 80])
@pytest.mark.parametrize("text", [*NAMES, "g͎̊̂", "\u0eb3ж"])
def test_ink_lies_within_the_measured_size(text, letters, fonts):
    """All pixels that Pillow draws on a large image, with a free margin around."""
    ink, (left, top) = written(text, letters, fonts)
    width, height = text_size(text, letters, fonts)
    inner = ink[top + 1:top + height - 1, left + 1:left + width - 1]
    whole = Image.new("L", (80 * letters, 80 * letters))
    font = scaled_font(fonts[0], letters)
    ImageDraw.Draw(whole).text((40 * letters, 40 * letters), text, fill=255, font=font, anchor="ls")
    assert inner.sum() == ink.sum() == (np.asarray(whole) > 40).sum() > 3 * letters


@pytest.mark.parametrize("letters", [10, 23, 80])
@pytest.mark.parametrize("path", ["", str(MONO), str(STIX)])
def test_capital_letters_are_as_high_as_asked(letters, path):
    """Cyrillic Н looks like H. Below the baseline there is room for letters such as g, and the same margin as above."""
    fonts = find_fonts([], path)
    ink, (_, top) = written("Н", letters, fonts)
    rows = ink.any(axis=1).nonzero()[0] - top
    assert abs(len(rows) - letters) <= 1
    below = text_size("Н", letters, fonts)[1] - 1 - rows[-1]
    assert abs(below - rows[0] - letters // 4) <= 1


def test_ascii_is_drawn_as_before(fonts):
    assert (boxes("traffic light", fonts) == boxes("traffic light", ())).all()
    image = np.zeros((50, 300, 3), np.uint8)
    sheets = [contact_sheet([image], [["000001.jpg (id 1)", "second"]], 1, given) for given in (fonts, ())]
    assert (sheets[0] == sheets[1]).all()


def test_the_given_font_precedes():
    """In MONO all letters have the same width."""
    given, own = find_fonts(["щі"], str(MONO)), find_fonts(["щі"], "")
    assert [font.path for font in given] == [str(MONO)]
    widths = [[text_size(text, 40, fonts)[0] for text in ("щщщщ", "іііі")] for fonts in (given, own)]
    assert abs(widths[0][0] - widths[0][1]) < 10 < widths[1][0] - widths[1][1]


def test_a_font_of_the_system_has_what_the_first_lacks(tmp_path, monkeypatch, caplog):
    """A plain font is preferred to a bold one."""
    for name in ("stix.ttf", "STIX-Bold.ttf"):
        shutil.copy(STIX, tmp_path / name)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(font_manager, "X11FontDirectories", [str(tmp_path)])
    fonts = find_fonts(["круг", CIRCLED, "dog"], "")
    assert len(fonts) == 2 and fonts[1].characters >= set(map(ord, CIRCLED)) and not caplog.records
    assert "Bold" not in fonts[1].path
    assert class_text(CIRCLED, 3, fonts) == CIRCLED and (boxes(CIRCLED, fonts) != boxes("class 3", fonts)).any()
    assert len(find_fonts(["круг", "dog"], "")) == 1


@pytest.mark.parametrize(("contents", "reason"), [
    (None, "No such file or directory"), (b"no font", "it is no font"), (b"", "it is no font"),
    ((BUNDLED / "STIXSizOneSymReg.ttf").read_bytes(), "it has no outlines or no digits")])
def test_a_given_file_that_is_no_font(tmp_path, contents, reason):
    path = tmp_path / "a.ttf"
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(UserError) as error:
        find_fonts(["dog"], str(path))
    assert str(error.value) == f"font is {str(path)!r}, which cannot be used ({reason}); give a .ttf, .otf or .ttc file."


def test_names_that_no_font_has_are_logged_once(only_bundled, caplog):
    fonts = find_fonts(["круг", "行人", "dog", "ö行"], "")
    [record] = caplog.records
    assert "['行人', 'ö行']" in record.getMessage() and "set the key font" in record.getMessage()
    assert [class_text(name, 3, fonts) for name in ("行人", "круг", "dog", "Ö")] == ["class 3", "круг", "dog", "Ö"]
    assert (boxes("行人", fonts) == boxes("class 3", ())).all() and len(caplog.records) == 1


def test_accents_that_are_characters_of_their_own(fonts):
    name = "école Йё"
    apart = unicodedata.normalize("NFD", name)
    assert apart != name == class_text(apart, 3, fonts) and (boxes(apart, fonts) == boxes(name, fonts)).all()


@pytest.mark.parametrize("name", ["\u00a0", "\u3000", "ж\u2029", "a\nж", "ж\udc80"])
def test_names_that_cannot_be_seen(name, fonts):
    assert class_text(name, 3, fonts) == "class 3"


def test_long_names_lose_their_end(fonts):
    """The fewest possible letters are cut off, and the score stays."""
    text, letters = fitted("очень длинное имя класса", " 0.50", 120, 20, fonts)
    assert text.startswith("оче") and text.endswith(".. 0.50") and letters == MIN_TEXT_HEIGHT
    assert 100 < text_size(text, letters, fonts)[0] <= 120 < text_size(text.replace("..", "нь"), letters, fonts)[0]


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
