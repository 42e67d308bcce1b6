"""src/visualization/sheet.py and output.py: contact sheets, written to a file."""
import cv2
import numpy as np
import pytest

from src.visualization.output import write_image
from src.visualization.sheet import BACKGROUND, contact_sheet, fit


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 200, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("size", "fitted"), [((480, 640), (75, 100)), ((30, 20), (80, 53)), ((6000, 10), (80, 1))])
def test_fit_scales_image_and_boxes_alike(size, fitted):
    height, width = size
    boxes = np.array([[0, 0, width, height], [width / 4, height / 2, width / 2, height]])
    image, scaled = fit(noise(*size), boxes, 100, 80)
    assert image.shape == (*fitted, 3)
    np.testing.assert_allclose(scaled, [[0, 0, fitted[1], fitted[0]], [fitted[1] / 4, fitted[0] / 2, fitted[1] / 2, fitted[0]]])


def test_every_image_is_on_the_sheet_as_it_was():
    images = [noise(40 + 13 * number, 130 - 10 * number, number) for number in range(5)]
    sheet = contact_sheet(images, [[f"{number}.jpg", "second line"] for number in range(5)], columns=3)
    corners = []
    for image in images:
        distance = cv2.matchTemplate(sheet, image, cv2.TM_SQDIFF)
        assert distance.min() < 1000  # 3e8 at other positions; the sum is in float32
        corners.append(np.unravel_index(distance.argmin(), distance.shape))
    tops, lefts = zip(*corners)
    assert tops[0] == tops[1] == tops[2] < tops[3] == tops[4] and lefts[0] == lefts[3] < lefts[1] == lefts[4] < lefts[2]
    below = sheet[tops[0] + 40:tops[0] + 75, lefts[0]:lefts[0] + 130]
    assert (below.max(axis=2) < 60).sum() > 100  # letters of the caption


def test_captions_that_are_too_long_stay_in_their_column():
    images = [noise(50, 60)] * 2
    sheet = contact_sheet(images, [["a_very_long_file_name_of_a_image_行人.jpg"], []], columns=2)
    assert sheet.shape[1] == 3 * 10 + 2 * 60
    assert (sheet[62:, 72:] == BACKGROUND).all() and (sheet[62:, :70].max(axis=2) < 60).any()


@pytest.mark.parametrize("name", ["a.png", "a.b.jpg"])
def test_files_have_the_colours_of_the_image(tmp_path, name):
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30] = (250, 10, 20)
    write_image(str(tmp_path / name), image)
    found = cv2.cvtColor(cv2.imread(str(tmp_path / name)), cv2.COLOR_BGR2RGB).astype(int)
    assert np.abs(found - image)[:, np.r_[:25, 35:60]].max() <= (0 if name.endswith("png") else 6)
    assert [path.name for path in tmp_path.iterdir()] == [name]
