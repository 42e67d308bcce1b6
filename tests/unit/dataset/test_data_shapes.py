import json
import os

import cv2
import numpy as np
import pytest

from src.dataset import drawing
from src.dataset.annotations import load_coco
from src.dataset.shapes import ensure_shapes
from src.errors import UserError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("parent") / "shapes")
    ensure_shapes(root, 24, 10, 96, 128, 3)
    return root


def load(root, split):
    return load_coco(os.path.join(root, "annotations", f"instances_{split}.json"), os.path.join(root, split))


def contents(root):
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                found[os.path.relpath(os.path.join(folder, name), root)] = file.read()
    return found


def test_layout_is_coco_and_everything_is_annotated(drawn):
    train, val = load(drawn, "train2017"), load(drawn, "val2017")
    assert len(train.records) == 24 and len(val.records) == 10
    assert train.names == ["circle", "rectangle", "triangle", "star"] and train.category_ids == [3, 7, 18, 44]
    assert not any(train.drops.values()) and not any(val.drops.values())
    for record in train.records + val.records:
        assert 1 <= len(record.boxes) <= 6 and (record.height, record.width) == (96, 128)
        assert cv2.imread(record.path).shape == (96, 128, 3)
    for annotation in train.coco_json["annotations"]:
        width, height = annotation["bbox"][2:]
        assert annotation["iscrowd"] == 0 and 12 * 0.4 <= annotation["area"] <= width * height


def test_same_seed_same_bytes_and_other_seed_other_images(drawn, tmp_path):
    ensure_shapes(str(tmp_path / "again"), 24, 10, 96, 128, 3)
    assert contents(tmp_path / "again") == contents(drawn)
    ensure_shapes(str(tmp_path / "other"), 2, 2, 96, 128, 4)
    images = [data for root in (drawn, tmp_path / "other") for name, data in contents(root).items()
                if name.endswith(".jpg")]
    assert len(set(images)) == len(images) == 38


def test_boxes_are_tight_around_what_differs_from_the_background(drawn):
    for split, number in (("train2017", 0), ("val2017", 1)):
        for index, record in enumerate(load(drawn, split).records):
            rng = np.random.default_rng([3, number, index])
            background = np.round(drawing.draw_background(rng, 96, 128))
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


def test_no_shape_hides_more_than_the_allowed_part_of_another():
    for seed in range(40):
        _, boxes, ids, areas = drawing.draw_scene(np.random.default_rng(seed), 96, 96)
        assert len(boxes) == len(ids) == len(areas) >= 1
        extents = boxes[:, 2:] - boxes[:, :2]
        assert (extents > 0).all() and (extents <= 96 * drawing.MAX_EXTENT + 2).all()
        assert (areas >= 12 * (1 - drawing.MAX_COVERED)).all()


@pytest.mark.parametrize("name", list(drawing.CLASSES))
def test_covered_pixels_add_up_to_the_polygon_with_a_rim_below_one_pixel(name):
    corners = drawing.outline(name, np.random.default_rng(0)) * 40 + 50.3
    following = np.roll(corners, -1, axis=0)
    shoelace = abs(np.sum(corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0])) / 2
    perimeter = np.hypot(*(following - corners).T).sum()
    covered = drawing.covered_part(corners, 100, 100)
    assert covered.max() == 1.0 and ((covered > 0) & (covered < 1)).any()
    assert shoelace < covered.sum() < shoelace + perimeter


def test_existing_data_set_is_used_as_it_is(drawn):
    before = {name: os.stat(os.path.join(drawn, name)).st_mtime_ns for name in contents(drawn)}
    ensure_shapes(drawn, 24, 10, 96, 128, 3)
    assert before == {name: os.stat(os.path.join(drawn, name)).st_mtime_ns for name in contents(drawn)}


def test_other_parameters_are_refused_and_named(drawn):
    with pytest.raises(UserError, match="seed 3 instead of 5.*remove that folder or set another data.dataset_dir"):
        ensure_shapes(drawn, 24, 10, 96, 128, 5)


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="holds something else"):
        ensure_shapes(str(tmp_path), 2, 2, 32, 32, 0)
    (tmp_path / "shapes.json").write_text(json.dumps([1]))
    with pytest.raises(UserError, match="holds something else"):
        ensure_shapes(str(tmp_path), 2, 2, 32, 32, 0)
    assert sorted(os.listdir(tmp_path)) == ["photo.jpg", "shapes.json"]


def test_a_place_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written to .*file/shapes"):
        ensure_shapes(str(tmp_path / "file" / "shapes"), 2, 2, 32, 32, 0)
    assert os.listdir(tmp_path) == ["file"]
