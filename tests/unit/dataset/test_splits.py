"""Data sets with several files, and with some of the classes."""
import json
import logging
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from src.dataset.annotations import load_coco
from src.dataset.loader import EvalLoader
from src.dataset.splits import open_training_set, open_validation_set, random_part
from src.errors import UserError
from src.evaluation.coco import KEYS, score
from src.run.distributed import SingleProcess
from tests.helpers.coco_cases import plain_pycocotools

CAT_AND_DOG = {5: "cat", 2: "dog"}    # labels follow ascending ids: dog, cat
BIRD_AND_CAT = {7: "bird", 9: "cat"}


@pytest.fixture
def write_part(tmp_path):
    """Write an annotation file <name>.json and its image folder; `boxes` has an (image id, class name) per box.

    Box number i is [i, 2, 10, 20]. The images have the ids in `boxes` and `empty`. Returns the content of the file.
    """
    def write(name, classes, boxes, empty=()):
        ids = {text: number for number, text in classes.items()}
        images = [{"id": number, "file_name": f"{number}.png", "height": 40, "width": 60}
                  for number in sorted({image for image, _ in boxes} | set(empty))]
        rows = [{"id": i + 1, "image_id": image, "category_id": ids[text], "bbox": [i, 2, 10, 20]}
                for i, (image, text) in enumerate(boxes)]
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{images[0]['id']}.png").touch()
        categories = [{"id": number, "name": text} for number, text in classes.items()]
        content = {"images": images, "annotations": rows, "categories": categories}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return content
    return write


@pytest.fixture
def two_parts(write_part):
    write_part("a", CAT_AND_DOG, [(1, "cat"), (2, "dog")])
    write_part("b", BIRD_AND_CAT, [(1, "cat"), (3, "bird")])


@pytest.fixture
def make_cfg_of(tmp_path):
    """The settings of `data` for training on the parts with these names, and validation on all of them."""
    def make(*names, **settings):
        defaults = {"classes": None, "unite_classes": False, "nc": None, "names": None}
        return SimpleNamespace(data=SimpleNamespace(
            dataset_dir=str(tmp_path), draw_shapes=None, files=lambda split: [(f"{name}.json", name) for name in names],
            **{**defaults, **settings}))
    return make


@pytest.fixture
def open_train(make_cfg_of):
    return lambda *names, **settings: open_training_set(make_cfg_of(*names, **settings), SingleProcess())


@pytest.fixture
def open_val(make_cfg_of):
    return lambda *names, trained=None, **settings: open_validation_set(make_cfg_of(*names, **settings), SingleProcess(), trained)


def boxes_of(dataset):
    """Return, for each image, the last two parts of its path, and the class name and left side of each box."""
    return {tuple(record.path.split(os.sep)[-2:]): [(dataset.names[label], box[0]) for label, box in
                                                    zip(record.labels, record.boxes.tolist())] for record in dataset.records}


def test_files_with_the_same_classes_are_one_set(write_part, open_train):
    """The ids of images and of classes differ or repeat between the files."""
    write_part("a", CAT_AND_DOG, [(1, "cat"), (1, "dog"), (2, "dog")])
    write_part("b", {1: "dog", 8: "cat"}, [(2, "cat"), (5, "dog")])
    dataset = open_train("a", "b")
    assert dataset.names == ["dog", "cat"]
    assert boxes_of(dataset) == {("a", "1.png"): [("cat", 0), ("dog", 1)], ("a", "2.png"): [("dog", 2)],
                                 ("b", "2.png"): [("cat", 0)], ("b", "5.png"): [("dog", 1)]}
    assert [record.image_id for record in dataset.records] == [1, 2, 3, 4]
    assert [record.image_id for record in open_train("b").records] == [2, 5]


def test_files_with_other_classes_are_united_by_name_and_some_are_taken_in_the_order_of_their_list(two_parts, open_train):
    dataset = open_train("a", "b", unite_classes=True)
    assert dataset.names == ["dog", "cat", "bird"]
    assert boxes_of(dataset) == {("a", "1.png"): [("cat", 0)], ("a", "2.png"): [("dog", 1)], ("b", "1.png"): [("cat", 0)],
                                 ("b", "3.png"): [("bird", 1)]}
    for classes, unite, labels in ((["cat"], False, [[0], [], [0], []]), (["bird", "cat"], True, [[1], [], [1], [0]])):
        some = open_train("a", "b", classes=classes, unite_classes=unite)
        assert some.names == classes and [record.labels.tolist() for record in some.records] == labels
        assert all(record.labels.dtype == np.int32 for record in some.records)


@pytest.mark.parametrize(("settings", "sentence"), [
    ({}, r"b.json has the classes \['bird', 'cat'\], but .*a.json has \['dog', 'cat'\]: unite"),
    ({"classes": ["cat", "cow"]}, r"data.classes names cow, but .*a.json and .*b.json has the classes .*: correct"),
    ({"classes": ["cat", "bird"]}, r"a.json has no classes with the name bird, its classes are \['dog', 'cat'\]"),
    ({"unite_classes": True, "nc": 2}, "data.nc is 2, but .*a.json has 3 classes"),
    ({"classes": ["cat"], "names": ["cat", "dog"]}, r"data.names is \['cat', 'dog'\], but .*a.json has 1 classes \['cat'\]")])
def test_classes_that_do_not_fit(two_parts, open_train, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        open_train("a", "b", **settings)


def test_a_name_that_two_classes_have_cannot_be_chosen(write_part, open_train):
    write_part("a", {1: "cat", 2: "cat", 3: "dog"}, [(1, "dog")])
    with pytest.raises(UserError, match="a.json has 2 classes with the name cat"):
        open_train("a", classes=["cat"])
    assert open_train("a", classes=["dog"]).names == ["dog"]


def test_validation_has_the_expected_number_and_names_of_classes(write_part, open_val):
    write_part("a", CAT_AND_DOG, [(1, "cat")])
    assert open_val("a", nc=2, names=["dog", "cat"]).names == ["dog", "cat"]
    for settings in ({"nc": 3}, {"names": ["cat", "dog"]}):
        with pytest.raises(UserError, match=r"2 classes \['dog', 'cat'\]"):
            open_val("a", **settings)


def test_validation_has_the_classes_of_the_detector_if_they_are_united(write_part, open_val):
    write_part("val", BIRD_AND_CAT, [(1, "cat"), (3, "bird")])
    dataset = open_val("val", trained=["dog", "cat", "bird"], unite_classes=True)
    assert dataset.names == ["dog", "cat", "bird"] and dataset.category_ids == [10, 9, 7]
    assert boxes_of(dataset) == {("val", "1.png"): [("cat", 0)], ("val", "3.png"): [("bird", 1)]}
    assert dataset.coco_json["categories"] == [{"id": 10, "name": "dog"}, {"id": 9, "name": "cat"}, {"id": 7, "name": "bird"}]
    with pytest.raises(UserError, match=r"val.json has the class bird, which the detector does not have \(dog, cat\)"):
        open_val("val", trained=["dog", "cat"], unite_classes=True)
    assert open_val("val", trained=["dog", "cat"]).names == ["bird", "cat"]


def test_validation_files_are_one_set_with_the_category_ids_of_the_first(write_part, open_val, tmp_path):
    """The ids of images, boxes and classes repeat or differ. The combined annotations load as the same set."""
    write_part("a", CAT_AND_DOG, [(1, "cat"), (1, "dog"), (2, "dog")])
    write_part("b", {1: "dog", 5: "cat"}, [(2, "cat"), (1, "dog")], empty=(9,))
    dataset = open_val("a", "b")
    assert boxes_of(dataset) == {("a", "1.png"): [("cat", 0), ("dog", 1)], ("a", "2.png"): [("dog", 2)],
                                 ("b", "1.png"): [("dog", 1)], ("b", "2.png"): [("cat", 0)], ("b", "9.png"): []}
    assert dataset.annotation_path == f"{tmp_path}/a.json and {tmp_path}/b.json" and dataset.category_ids == [2, 5]
    assert [row["id"] for row in dataset.coco_json["annotations"]] == [1, 2, 3, 4, 5]
    (tmp_path / "annotations.json").write_text(json.dumps(dataset.coco_json))
    again = load_coco(str(tmp_path / "annotations.json"), dataset.image_dir)
    assert again.names == dataset.names and boxes_of(again) == boxes_of(dataset)
    assert [record.image_id for record in again.records] == [record.image_id for record in dataset.records] == [1, 2, 3, 4, 5]


def test_classes_of_several_validation_files(two_parts, open_val):
    with pytest.raises(UserError, match=r"b.json has the classes \['bird', 'cat'\], but .*a.json has \['dog', 'cat'\]: unite"):
        open_val("a", "b")
    with pytest.raises(UserError, match=r"b.json has the class bird, which the detector does not have \(dog, cat\)"):
        open_val("a", "b", trained=["dog", "cat"], unite_classes=True)
    for settings, names in (({"trained": ["dog", "cat", "bird"]}, ["dog", "cat", "bird"]), ({}, ["dog", "cat", "bird"]),
                            ({"classes": ["bird", "dog"]}, ["bird", "dog"])):
        dataset = open_val("a", "b", unite_classes=True, **settings)
        assert dataset.names == names and len(set(dataset.category_ids)) == len(names)
        wanted = {("a", "1.png"): ("cat", 0), ("a", "2.png"): ("dog", 1), ("b", "1.png"): ("cat", 0), ("b", "3.png"): ("bird", 1)}
        assert boxes_of(dataset) == {path: [box] * (box[0] in names) for path, box in wanted.items()}
        names_of = {row["id"]: row["name"] for row in dataset.coco_json["categories"]}
        assert [names_of[row["category_id"]] for row in dataset.coco_json["annotations"]] == [
            name for name, _ in wanted.values() if name in names]


def test_equal_files_stay_in_the_same_part(tmp_path, caplog):
    """Without equal files, the split is a permutation of the sorted ids. Some files have equal sizes, and some are missing."""
    caplog.set_level(logging.INFO, "faster_rcnn")
    images = {number: str(tmp_path / f"{number}.png") for number in (30, *range(-3, 20))}
    for number in range(20):
        (tmp_path / f"{number}.png").write_bytes(b"x" * (number // 2) + str(number % 2).encode())
    for fraction, count in ((0.2, 5), (0.01, 1), (0.99, 23)):
        order = np.random.default_rng(7).permutation(sorted(images))
        assert random_part(images, fraction, 7) == set(order[:count].tolist())
    assert not caplog.records
    for copies in ((3, 11), (5, 30), (5, 7)):
        shutil.copy(images[copies[0]], images[copies[1]])
    parts = [random_part(images, 0.5, seed) for seed in range(20)]
    assert all(part & group in (set(), group) for part in parts for group in ({3, 11}, {5, 7, 30}))
    assert len({frozenset(part & {3, 5}) for part in parts}) == 4
    assert f"same part: {images[3]} = {images[11]}, {images[5]} = {images[7]} = {images[30]}" in caplog.text


def test_the_log_has_the_boxes_of_each_class_and_warns_of_none(write_part, open_train, open_val, caplog):
    write_part("a", {**CAT_AND_DOG, 9: "cow"}, [(1, "cat"), (2, "dog"), (2, "dog")])
    with caplog.at_level(logging.INFO, "faster_rcnn"):
        open_train("a")
        open_val("a")
    said = [(record.levelname, record.getMessage().partition("a.json: ")[2]) for record in caplog.records]
    assert said == [("INFO", "boxes by class: dog 2, cat 1, cow 0"),
                    ("WARNING", "no box of the class cow: the detector cannot learn to find it"),
                    ("INFO", "boxes by class: dog 2, cat 1, cow 0"),
                    ("WARNING", "no box of the class cow: it has no AP, and the means leave it out")]


def test_numbers_of_some_classes_are_those_of_pycocotools_with_their_category_ids(write_part, open_val, make_cfg, tmp_path):
    """Detections of all classes on random annotations: the numbers of a subset of classes ignore all other classes.

    Images without a box of these classes are evaluated as well.
    """
    rng = np.random.default_rng(3)
    classes = {number: f"class {number}" for number in (3, 4, 8, 11)}
    content = write_part("val", classes, [(int(image), f"class {number}") for image, number in
                                          zip(rng.integers(1, 30, 120), rng.choice(list(classes), 120))], empty=(40, 41))
    for row in content["annotations"]:
        row.update(bbox=[*rng.uniform(0, 20, 2).round(2), *rng.uniform(2, 20, 2).round(2)], area=float(rng.uniform(1, 9000)),
                   iscrowd=int(rng.random() < 0.1))
    (tmp_path / "val.json").write_text(json.dumps(content))
    results = [{"image_id": row["image_id"], "category_id": int(rng.choice([row["category_id"], 8])),
                "bbox": (np.array(row["bbox"]) + rng.uniform(-2, 2, 4)).clip(0.5).tolist(), "score": float(rng.random())}
               for row in content["annotations"] for _ in range(3)]
    results += [{"image_id": 40, "category_id": 11, "bbox": [1, 1, 9, 9], "score": 0.99}]

    dataset = open_val("val", classes=["class 11", "class 4"])
    own = [row for row in results if row["category_id"] in (4, 11)]
    metrics = score(dataset.coco_json, own, [record.image_id for record in dataset.records], dataset.names,
                    dataset.category_ids).metrics
    assert {row["category_id"] for row in dataset.coco_json["annotations"]} == {4, 11}
    assert dataset.category_ids == [11, 4]
    assert metrics["images"] == EvalLoader(dataset, make_cfg()).num_images == len(content["images"])
    wanted = plain_pycocotools({"info": {}, **content}, results, [4, 11]).stats
    np.testing.assert_allclose([metrics[key] for key in KEYS], wanted, rtol=0, atol=1e-12)
    assert metrics["AP"] > 0.01
