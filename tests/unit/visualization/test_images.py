"""src/visualization/images.py: contact sheets, samples of an evaluation, and image files."""
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from deploy.drawing import colour_of
from src.errors import UserError
from src.visualization.fonts import find_fonts
from src.visualization.images import BACKGROUND, SAMPLES, contact_sheet, fit, write_image, write_samples


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 200, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("size", "fitted"), [((480, 640), (75, 100)), ((30, 20), (80, 53)), ((6000, 10), (80, 1))])
def test_fit_scales_image_and_boxes_alike(size, fitted):
    height, width = size
    boxes = np.array([[0, 0, width, height], [width / 4, height / 2, width / 2, height]])
    image, scaled = fit(noise(*size), boxes, 100, 80)
    assert image.shape == (*fitted, 3)
    np.testing.assert_allclose(scaled, [[0, 0, fitted[1], fitted[0]], [fitted[1] / 4, fitted[0] / 2, fitted[1] / 2, fitted[0]]])


def test_contact_sheet_contains_every_image():
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


def test_long_captions_stay_in_their_column():
    images = [noise(50, 60)] * 2
    sheet = contact_sheet(images, [["a_very_long_file_name_of_a_image_行人.jpg"], []], columns=2)
    assert sheet.shape[1] == 3 * 10 + 2 * 60
    assert (sheet[62:, 72:] == BACKGROUND).all() and (sheet[62:, :70].max(axis=2) < 60).any()


@pytest.mark.parametrize("name", ["a.png", "a.b.jpg"])
def test_write_image_keeps_the_colours(tmp_path, name):
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30] = (250, 10, 20)
    write_image(str(tmp_path / name), image)
    found = cv2.cvtColor(cv2.imread(str(tmp_path / name)), cv2.COLOR_BGR2RGB).astype(int)
    assert np.abs(found - image)[:, np.r_[:25, 35:60]].max() <= (0 if name.endswith("png") else 6)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.fixture
def dataset(tmp_path):
    """Grey images of 100 x 160, each with a box of the class with label 1 and category id 7."""
    records = []
    for number in range(20):
        path = str(tmp_path / f"{number}.png")
        cv2.imwrite(path, np.full((100, 160, 3), 128, np.uint8))
        box = np.array([[40, 20, 120, 90]], np.float32)
        records.append(SimpleNamespace(image_id=100 + number, path=path, height=100, width=160, boxes=box, labels=np.array([1])))
    return SimpleNamespace(records=records, names=["a", "b", "c"], category_ids=[3, 7, 9])


def row(image_id, category_id, score):
    return {"image_id": image_id, "category_id": category_id, "bbox": [40.0, 20.0, 80.0, 70.0], "score": score}


def names(folder):
    return sorted(path.name for path in (folder / "samples").iterdir())


def share_of(image, label):
    """Return the share of pixels in a box's label and line whose colour is close to that of the class."""
    return (np.abs(image.astype(int) - colour_of(label)).max(axis=2) < 40).mean()


def test_annotations_are_left_and_detections_right(tmp_path, dataset):
    write_samples(str(tmp_path), dataset, [row(100, 9, 0.31), row(100, 3, 0.29), row(101, 3, 1.0), row(119, 3, 0.9)])
    found = {name: cv2.cvtColor(cv2.imread(str(tmp_path / "samples" / name)), cv2.COLOR_BGR2RGB) for name in names(tmp_path)}
    assert list(found) == [f"{100 + number}.jpg" for number in (0, 3, 5, 8, 11, 14, 16, 19)] and len(found) == SAMPLES
    # The image's longer side is 640 pixels. Both images are side by side with gaps around them, and a line of text below.
    image = found["100.jpg"]
    assert 410 < image.shape[0] < 470 and image.shape[1] == 2 * 640 + 3 * 10
    left, right = image[:410, :645], image[:410, 645:]
    assert share_of(left, 1) > 0.005 and share_of(right, 2) > 0.005
    assert share_of(left, 2) == share_of(right, 1) == share_of(right, 0) == 0
    assert share_of(found["119.jpg"][:410, 645:], 0) > 0.005 and share_of(found["103.jpg"][:410, 645:], 0) == 0


def test_class_and_file_names_in_any_script(tmp_path, dataset):
    """Samples with other class names and file names differ on both sides and below."""
    fonts, images = find_fonts([], ""), []
    for name in "жщ":
        dataset.names = ["", name, ""]
        record = dataset.records[0]
        record.path = str(Path(record.path).rename(tmp_path / f"{name}.png"))
        write_samples(str(tmp_path), dataset, [row(100, 7, 0.9)], fonts)
        images.append(cv2.imread(str(tmp_path / "samples" / "100.jpg")))
    differ = np.abs(images[0].astype(int) - images[1]).max(axis=2) > 60
    assert differ[:400, :645].any() and differ[:400, 645:].any() and differ[411:, :645].any() and not differ[411:, 645:].any()


def test_earlier_samples_are_removed_or_in_the_way(tmp_path, dataset):
    write_samples(str(tmp_path), dataset, [])
    dataset.records = dataset.records[:3]
    (tmp_path / "0.png").write_bytes(b"damaged")
    write_samples(str(tmp_path), dataset, [])
    assert names(tmp_path) == ["101.jpg", "102.jpg"]
    (tmp_path / "samples" / "102.jpg").unlink()
    (tmp_path / "samples" / "102.jpg").mkdir()
    with pytest.raises(UserError, match=r"the samples could not be written into .*samples \(Is a directory\); make room"):
        write_samples(str(tmp_path), dataset, [])
