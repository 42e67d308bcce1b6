"""src/visualization/boxes.py and text.py: boxes and labels on images of any size."""
import cv2
import numpy as np
import pytest

from src.visualization.boxes import draw_boxes, enlargement
from src.visualization.colours import colour_of
from src.visualization.text import plain_text, shortened

NAMES = ["circle", "rectangle", "triangle", "star"]
GREY = 128


def blank(height, width):
    return np.full((height, width, 3), GREY, np.uint8)


def white(image):
    """Return the mask of text pixels on the colour of label 0, whose blue is 34, and on the background GREY."""
    return image[..., 2] > 200


def text_pixels(image):
    return int(white(image).sum())


@pytest.mark.parametrize(("height", "width", "factor"), [
    (480, 640, 1), (4000, 6000, 1), (30, 40, 12), (128, 128, 4), (1, 1, 480), (479, 480, 1), (479, 479, 2), (20, 1000, 4),
    (20, 600, 5), (2, 5000, 1)])
def test_small_images_are_enlarged(height, width, factor):
    assert enlargement((height, width, 3)) == factor
    assert draw_boxes(blank(height, width), [[0, 0, width, height]], [0], NAMES).shape == (height * factor, width * factor, 3)


def test_a_image_without_boxes_is_as_it_was():
    image = np.random.default_rng(0).integers(0, 256, (500, 600, 3), np.uint8)
    drawn = draw_boxes(image, np.zeros((0, 4)), [], NAMES, [])
    assert drawn is not image
    np.testing.assert_array_equal(drawn, image)
    before = image.copy()
    draw_boxes(image, [[10, 10, 90, 90]], [1], NAMES)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(("height", "width", "factor"), [(480, 640, 1), (30, 40, 12), (4000, 6000, 1)])
@pytest.mark.parametrize("label", [1, 2])
def test_lines_are_where_the_box_is(height, width, factor, label):
    """Line width scales with the image. Lines are centred on the sides of the box; nothing else is drawn below it."""
    box = np.array([width * 0.25, height * 0.5, width * 0.75, height * 0.75])
    drawn = draw_boxes(blank(height, width), [box], [label], NAMES)
    row = (drawn[round(height * factor * 0.62)] == colour_of(label)).all(axis=1).nonzero()[0]
    line = len(row) // 2
    assert 2 <= line <= 3 if height * factor < 500 else 15 <= line <= 20
    assert np.abs(row[:line].mean() - box[0] * factor) <= 1 and np.abs(row[line:].mean() - box[2] * factor) <= 1
    column = (drawn[:, round(width * factor * 0.7)] == colour_of(label)).all(axis=1).nonzero()[0]
    assert np.abs(column[-line:].mean() - box[3] * factor) <= 1
    assert (drawn[round(box[3] * factor) + line + 2:] == GREY).all()


def test_the_whole_line_is_inside():
    """The box is as large as the image, or larger; lines are checked away from the label."""
    for beyond in (0, 70):
        drawn = draw_boxes(blank(2000, 3000), [[-beyond, -beyond, 3000 + beyond, 2000 + beyond]], [1], NAMES)
        inside = (drawn[1000] == colour_of(1)).all(axis=1)
        assert inside[:8].all() and inside[-8:].all() and (drawn[-8:, 2000] == colour_of(1)).all()


@pytest.mark.parametrize("box", [
    [0, 0, 640, 480], [0, 0, 30, 30], [610, 0, 640, 30], [0, 450, 30, 480], [610, 450, 640, 480], [300, 200, 300.4, 200.4],
    [0, 0, 640, 20], [620, 0, 640, 480], [-50, -50, 700, 500]])
def test_labels_are_whole_wherever_the_box_is(box):
    """There are the same number of white pixels as in the middle of a large image, so nothing is cut off."""
    middle = draw_boxes(blank(480, 640), [[200, 200, 500, 400]], [0], NAMES, [0.875])
    drawn = draw_boxes(blank(480, 640), [box], [0], NAMES, [0.875])
    assert text_pixels(drawn) == text_pixels(middle) > 100


def test_letters_are_legible_and_grow():
    """Compares the height of the text's pixels, which is mostly that of capital letters."""
    heights = []
    for height, width in ((30, 40), (480, 640), (4000, 6000)):
        rows = white(draw_boxes(blank(height, width), [[5, 5, width - 5, height - 5]], [0], ["HH"])).any(axis=1).nonzero()[0]
        heights.append(rows[-1] - rows[0] + 1)
    assert 9 <= heights[0] <= heights[1] <= 14 and 80 <= heights[2] <= 120


def test_labels_make_way_for_each_other():
    boxes = [[100, 100, 300, 300], [102, 101, 305, 300], [103, 102, 302, 301], [99, 100, 306, 300]]
    alone = [text_pixels(draw_boxes(blank(480, 640), [box], [0], NAMES)) for box in boxes]
    assert text_pixels(draw_boxes(blank(480, 640), boxes, [0] * 4, NAMES)) == sum(alone)


def test_the_first_box_is_over_the_others():
    box = [100, 100, 300, 300]
    assert draw_boxes(blank(480, 640), [box, box], [1, 2], NAMES)[200, 100].tolist() == list(colour_of(1))


def test_names_and_scores_are_what_is_written():
    """The image of a text equals OpenCV's image."""
    drawn = draw_boxes(blank(480, 640), [[100, 100, 300, 300]], [1], NAMES, [0.987])
    others = [draw_boxes(blank(480, 640), [[100, 100, 300, 300]], [1], ["", name], [score])
              for name, score in (("rectangle", 0.99), ("rectangle", 0.98), ("rectangles", 0.99))]
    assert [bool((drawn == other).all()) for other in others] == [True, False, False]
    label = drawn[70:100, 90:260]
    written = np.full_like(label, colour_of(1))
    cv2.putText(written, "rectangle 0.99", (12, 23), cv2.FONT_HERSHEY_DUPLEX, 11 / 22, (0, 0, 0), 1, cv2.LINE_AA)
    dark = [(area.max(axis=2) < 60) for area in (label, written)]
    shift = [np.argwhere(area).min(axis=0) for area in dark]
    assert np.argwhere(dark[0]).tolist() == (np.argwhere(dark[1]) - shift[1] + shift[0]).tolist()


def test_long_names_on_narrow_images():
    """The score stays, and the end of the name is cut off."""
    for width in (100, 30, 8):
        drawn = draw_boxes(blank(480, width), [[0, 100, width, 200]], [0], ["a very long name of a class"], [0.5])
        assert text_pixels(drawn) > 20


@pytest.mark.parametrize(("name", "text"), [
    ("traffic light", "traffic light"), ("Fußgänger", "class 7"), ("café", "cafe"), ("行人", "class 7"), (" ", "class 7"),
    ("Öl", "Ol")])
def test_names_beyond_ascii(name, text):
    assert plain_text(name, 7) == text


def test_shortened():
    assert [shortened("abcdef", length) for length in (7, 6, 5, 3, 1)] == ["abcdef", "abcdef", "abc..", "a..", "a.."]
