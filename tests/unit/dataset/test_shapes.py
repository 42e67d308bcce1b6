"""The generated data set of the quick start."""
import os

import cv2
import numpy as np
import pytest

from src.dataset import shapes
from src.dataset.annotations import load_coco
from src.dataset.shapes import ensure_shapes
from src.errors import UserError

SIZES = 24, 10, 96, 128  # training and validation images, height, width


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("parent") / "shapes")
    ensure_shapes(root, *SIZES, seed=3)
    return root


def load(root, split):
    return load_coco(os.path.join(root, "annotations", f"instances_{split}.json"), os.path.join(root, split))


def contents(root):
    """Return {path in the folder: (content, time of the last change)}."""
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    found = {}
    for path in paths:
        with open(path, "rb") as file:
            found[os.path.relpath(path, root)] = file.read(), os.stat(path).st_mtime_ns
    return found


def test_layout_is_coco_and_everything_is_annotated(drawn):
    train, val = load(drawn, "train2017"), load(drawn, "val2017")
    assert len(train.records) == 24 and len(val.records) == 10
    assert train.names == ["circle", "rectangle", "triangle", "star"] and train.category_ids == [3, 7, 18, 44]
    for dataset in (train, val):
        assert len(dataset.coco_json["annotations"]) == sum(len(record.boxes) for record in dataset.records)
        for record in dataset.records:
            assert 1 <= len(record.boxes) <= 6 and (record.height, record.width) == (96, 128)
            assert cv2.imread(record.path).shape == (96, 128, 3)
    for annotation in train.coco_json["annotations"]:
        width, height = annotation["bbox"][2:]
        assert annotation["iscrowd"] == 0 and 12 * 0.4 <= annotation["area"] <= width * height


def test_same_seed_same_bytes_and_other_seed_other_images(drawn, tmp_path):
    """An existing data set is used as it is."""
    before = contents(drawn)
    ensure_shapes(drawn, *SIZES, seed=3)
    assert contents(drawn) == before
    ensure_shapes(str(tmp_path / "again"), *SIZES, seed=3)
    assert {name: data for name, (data, _) in contents(tmp_path / "again").items()} == {
        name: data for name, (data, _) in before.items()}
    ensure_shapes(str(tmp_path / "other"), 2, 2, 96, 128, seed=4)
    images = [data for files in (before, contents(tmp_path / "other")) for name, (data, _) in files.items()
              if name.endswith(".jpg")]
    assert len(set(images)) == len(images) == 38


def test_boxes_are_tight_around_what_differs_from_the_background(drawn):
    for split, number in (("train2017", 0), ("val2017", 1)):
        for index, record in enumerate(load(drawn, split).records):
            background = np.round(shapes.draw_background(np.random.default_rng([3, number, index]), 96, 128))
            image = cv2.cvtColor(cv2.imread(record.path), cv2.COLOR_BGR2RGB)
            differs = np.abs(image - background).max(axis=2) > 40  # JPEG changes pixels less, the middle of an edge more
            rows, columns = np.nonzero(differs)
            union = np.concatenate([record.boxes[:, :2].min(axis=0), record.boxes[:, 2:].max(axis=0)])
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(found, union, atol=2.0)
            inside = np.zeros_like(differs)
            for x1, y1, x2, y2 in record.boxes.astype(int):
                inside[max(y1 - 2, 0):y2 + 2, max(x1 - 2, 0):x2 + 2] = True
            assert not (differs & ~inside).any()


@pytest.mark.parametrize("name", list(shapes.CLASSES))
def test_covered_pixels_add_up_to_the_polygon_with_a_rim_below_one_pixel(name):
    corners = shapes.outline(name, np.random.default_rng(0)) * 40 + 50.3
    following = np.roll(corners, -1, axis=0)
    shoelace = abs(np.sum(corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0])) / 2
    perimeter = np.hypot(*(following - corners).T).sum()
    covered = shapes.covered_part(corners, 100, 100)
    assert covered.max() == 1.0 and ((covered > 0) & (covered < 1)).any()
    assert shoelace < covered.sum() < shoelace + perimeter


def test_other_folders_are_refused_and_keep_their_content(drawn, tmp_path):
    with pytest.raises(UserError, match="seed 3 instead of 5.*remove that folder or set another data.dataset_dir"):
        ensure_shapes(drawn, *SIZES, seed=5)
    (tmp_path / "photo.jpg").write_bytes(b"x")
    for content in (None, "[1]", "{"):
        if content:
            (tmp_path / "shapes.json").write_text(content)
        with pytest.raises(UserError, match="holds something else"):
            ensure_shapes(str(tmp_path), 2, 2, 32, 32, 0)
    assert sorted(os.listdir(tmp_path)) == ["photo.jpg", "shapes.json"]
    with pytest.raises(UserError, match="cannot be written to .*photo.jpg/shapes"):
        ensure_shapes(str(tmp_path / "photo.jpg" / "shapes"), 2, 2, 32, 32, 0)
    assert sorted(os.listdir(tmp_path)) == ["photo.jpg", "shapes.json"]
