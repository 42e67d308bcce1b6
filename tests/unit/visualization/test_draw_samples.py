"""src/visualization/samples.py: annotated boxes next to detections."""
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from src.errors import UserError
from src.visualization.colours import colour_of
from src.visualization.font import find_fonts
from src.visualization.samples import SAMPLES, write_samples


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


def test_names_and_file_names_in_any_script(tmp_path, dataset):
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


def test_samples_of_an_earlier_evaluation_go(tmp_path, dataset):
    write_samples(str(tmp_path), dataset, [])
    dataset.records = dataset.records[:3]
    (tmp_path / "0.png").write_bytes(b"spoilt")
    write_samples(str(tmp_path), dataset, [])
    assert names(tmp_path) == ["101.jpg", "102.jpg"]


def test_what_cannot_be_written_is_one_sentence(tmp_path, dataset):
    (tmp_path / "samples").write_text("a file")
    with pytest.raises(UserError, match="samples"):
        write_samples(str(tmp_path), dataset, [])
    (tmp_path / "samples").unlink()
    (tmp_path / "samples" / "100.jpg").mkdir(parents=True)
    with pytest.raises(UserError, match=r"the samples could not be written into .*samples \(Is a directory\); make room"):
        write_samples(str(tmp_path), dataset, [])
