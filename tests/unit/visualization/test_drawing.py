"""deploy/drawing.py: boxes, labels and colours on images of any size."""
import numpy as np
import pytest

from deploy.drawing import COLOURS, MIN_LETTERS, Text, colour_of, draw_boxes, enlargement, fit_text, text_colour

NAMES = ["circle", "rectangle", "triangle", "star"]
GREY = 128


def blank(height, width):
    return np.full((height, width, 3), GREY, np.uint8)


def white(image):
    """Return the mask of text pixels on the colour of label 0, whose blue is 34, and on the background GREY."""
    return image[..., 2] > 200


@pytest.mark.parametrize(("height", "width", "factor"), [
    (480, 640, 1), (4000, 6000, 1), (30, 40, 12), (1, 1, 480), (479, 480, 1), (479, 479, 2), (20, 1000, 4), (20, 600, 5),
    (2, 5000, 1)])
def test_small_images_are_enlarged(height, width, factor):
    assert enlargement((height, width, 3)) == factor
    drawn = draw_boxes(blank(height, width), [[0, 0, width, height]], None, [0], NAMES)
    assert drawn.shape == (height * factor, width * factor, 3)


def test_image_is_not_changed():
    image = np.random.default_rng(0).integers(0, 256, (500, 600, 3), np.uint8)
    before = image.copy()
    drawn = draw_boxes(image, np.zeros((0, 4)), [], [], NAMES)
    assert drawn is not image
    np.testing.assert_array_equal(drawn, image)
    draw_boxes(image, [[10, 10, 90, 90]], None, [1], NAMES)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(("height", "width", "factor"), [(480, 640, 1), (30, 40, 12), (4000, 6000, 1)])
def test_lines_are_centred_on_the_sides_of_the_box(height, width, factor):
    """Line width and letters scale with the image. Nothing else is drawn below the box."""
    box = np.array([width * 0.25, height * 0.5, width * 0.75, height * 0.75])
    drawn = draw_boxes(blank(height, width), [box], None, [1], NAMES)
    row = (drawn[round(height * factor * 0.62)] == colour_of(1)).all(axis=1).nonzero()[0]
    line = len(row) // 2
    assert 2 <= line <= 3 if height * factor < 500 else 15 <= line <= 20
    assert np.abs(row[:line].mean() - box[0] * factor) <= 1 and np.abs(row[line:].mean() - box[2] * factor) <= 1
    column = (drawn[:, round(width * factor * 0.7)] == colour_of(1)).all(axis=1).nonzero()[0]
    assert np.abs(column[-line:].mean() - box[3] * factor) <= 1
    assert (drawn[round(box[3] * factor) + line + 2:] == GREY).all()
    label = (drawn[:round(box[1] * factor) - line] != GREY).any(axis=(1, 2)).sum()
    assert 15 <= label <= 25 if height * factor < 500 else 120 <= label <= 200


@pytest.mark.parametrize("beyond", [0, 70])
def test_lines_of_a_box_as_large_as_the_image_are_inside(beyond):
    """Lines are checked away from the label."""
    drawn = draw_boxes(blank(2000, 3000), [[-beyond, -beyond, 3000 + beyond, 2000 + beyond]], None, [1], NAMES)
    inside = (drawn[1000] == colour_of(1)).all(axis=1)
    assert inside[:8].all() and inside[-8:].all() and (drawn[-8:, 2000] == colour_of(1)).all()


@pytest.mark.parametrize("box", [
    [0, 0, 640, 480], [0, 0, 30, 30], [610, 0, 640, 30], [0, 450, 30, 480], [610, 450, 640, 480], [300, 200, 300.4, 200.4],
    [620, 0, 640, 480], [-50, -50, 700, 500]])
def test_labels_are_complete_for_every_box(box):
    """There are the same number of white pixels as in the middle of a large image, so nothing is cut off."""
    middle = draw_boxes(blank(480, 640), [[200, 200, 500, 400]], [0.875], [0], NAMES)
    drawn = draw_boxes(blank(480, 640), [box], [0.875], [0], NAMES)
    assert white(drawn).sum() == white(middle).sum() > 100


def test_labels_do_not_overlap():
    boxes = [[100, 100, 300, 300], [102, 101, 305, 300], [103, 102, 302, 301], [99, 100, 306, 300]]
    alone = [white(draw_boxes(blank(480, 640), [box], None, [0], NAMES)).sum() for box in boxes]
    assert white(draw_boxes(blank(480, 640), boxes, None, [0] * 4, NAMES)).sum() == sum(alone)


def test_first_box_is_on_top():
    box = [100, 100, 300, 300]
    assert draw_boxes(blank(480, 640), [box, box], None, [1, 2], NAMES)[200, 100].tolist() == list(colour_of(1))


def test_label_is_the_name_and_the_score():
    """The label is above the upper left corner of the box."""
    drawn = draw_boxes(blank(480, 640), [[100, 100, 300, 300]], [0.987], [1], NAMES)
    text = Text("rectangle 0.99", 11)
    expected = np.zeros((text.height, text.width, 3), np.uint8)
    text.draw(expected, 0, 0, text_colour(colour_of(1)), colour_of(1))
    np.testing.assert_array_equal(drawn[99 - text.height:99, 99:99 + text.width], expected)


def test_long_texts_lose_their_end():
    """The letters shrink first. Then as few letters as possible are cut off, and the ending stays."""
    assert (fit_text("circle", " 0.50", 500, 20).text, fit_text("circle", " 0.50", 500, 20).letters) == ("circle 0.50", 20)
    assert fit_text("circle", " 0.50", 100, 20).text == "circle 0.50" and 10 < fit_text("circle", " 0.50", 100, 20).letters < 20
    found = fit_text("a very long class name", " 0.50", 120, 20)
    assert found.text.startswith("a ve") and found.text.endswith(".. 0.50") and found.letters == MIN_LETTERS
    assert found.width <= 120 < Text(found.text.replace("..", "m.."), MIN_LETTERS).width
    for width in (100, 30, 8):
        assert white(draw_boxes(blank(480, width), [[0, 100, width, 200]], [0.5], [0], ["a very long class name"])).sum() > 20


def linear_rgb(colour):
    c = np.array(colour) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def test_colours_do_not_change():
    """Users compare images of different versions of the program side by side."""
    assert [colour_of(label) for label in range(4)] == [(221, 51, 34), (0, 238, 0), (0, 17, 255), (0, 187, 255)]
    assert colour_of(COLOURS + 1) == colour_of(1) and len({colour_of(label) for label in range(COLOURS)}) == COLOURS


def test_contrast_of_text():
    """The contrast is at least 4.5, as WCAG 2 requires."""
    for colour in map(colour_of, range(COLOURS)):
        assert text_colour(colour) in ((0, 0, 0), (255, 255, 255))
        dark, light = sorted(linear_rgb(each) @ (0.2126, 0.7152, 0.0722) for each in (colour, text_colour(colour)))
        assert (light + 0.05) / (dark + 0.05) > 4.5
