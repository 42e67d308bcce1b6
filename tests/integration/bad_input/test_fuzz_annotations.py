"""Random damage to a good annotation file, and random lists of files. The result is a data set that trains and is evaluated, or
one error message."""
import contextlib
import io
import itertools
import json
import logging
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.config import load_config
from src.dataset.annotations import load_coco
from src.dataset.loader import EvalLoader, TrainLoader
from src.dataset.splits import open_training_set, open_validation_set
from src.evaluation.coco import result_rows, score
from src.run.distributed import SingleProcess
from src.run.launch import run, set_up_logging
from tests.helpers.fuzz_profile import fuzz, spoilt
from tests.helpers.sentences import ROOT, sentence_of

SETTINGS = {"num_workers": 1, "batch_size": 1}


def configuration(**settings):
    settings = {**SETTINGS, **{name.replace("__", "."): value for name, value in settings.items()}}
    return load_config(ROOT / "tests" / "tiny_detector.yml", [(name, value, "here") for name, value in settings.items()])


CFG = configuration()


@pytest.fixture(scope="module")
def good(data_folder):
    """The text of a small file with two images and three boxes, and a path that tests overwrite."""
    content = json.loads((data_folder / "annotations" / "instances_train2017.json").read_text())
    images = content["images"][:2]
    of_first = [row for row in content["annotations"] if row["image_id"] == 1]
    of_second = [row for row in content["annotations"] if row["image_id"] == 2]
    content = {"images": images, "annotations": of_first[:2] + of_second[:1], "categories": content["categories"][:3],
               "info": {"year": 2024}}
    known = {category["id"] for category in content["categories"]}
    for row in content["annotations"]:
        row["category_id"] = row["category_id"] if row["category_id"] in known else min(known)
        row["segmentation"] = [[1, 2, 3, 4, 5, 6]]
    return json.dumps(content), data_folder / "annotations" / "fuzz.json"


def use(path, image_dir):
    """Run the code that uses a data set in training and evaluation before and after the network."""
    logger = set_up_logging()
    dataset = load_coco(str(path), str(image_dir))
    logger.info("%d classes: %s", len(dataset.names), ", ".join(dataset.names))
    check_rows(EvalLoader(dataset, CFG))
    score_one_box(dataset)
    check_rows(TrainLoader(dataset, CFG))


def check_rows(loader):
    """Check the loader's first batches."""
    for batch in itertools.islice(loader.batches(), 3):
        row = {name: np.asarray(column)[0] for name, column in batch._asdict().items()}
        assert row["image"].shape == (64, 64, 3) and row["image_id"].dtype == np.int64
        assert all(np.isfinite(row[name]).all() for name in ("boxes", "valid_size", "scale"))
        assert (row["boxes"] >= 0).all() and (row["boxes"] <= 64.01).all() and (row["scale"] > 0).all()


def score_one_box(dataset):
    """Score an empty result, and a detection of the first class in the first image. The numbers must be valid in JSON."""
    ids = [record.image_id for record in dataset.records]
    box = np.float32([[1, 1, 20, 30]])
    rows = result_rows(ids[0], box, np.float32([0.5]), np.array([0]), dataset.category_ids)
    for results in ([], rows):
        evaluation = score(dataset.coco_json, results, ids, dataset.names, dataset.category_ids)
        json.dumps(evaluation.metrics, allow_nan=False)


def outcome(content, good, image_dir):
    """Run `use` on a file of these bytes, see `finish`."""
    good[1].write_bytes(content)
    finish(lambda: use(good[1], image_dir))


def finish(action):
    """Run `action` like the scripts; fails unless it succeeds or prints one sentence. Returns whether it succeeded."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # NumPy's warnings would be lines on standard error
        status = run(lambda *_: action(), lambda: None)
        logging.getLogger("faster_rcnn").handlers = []
    out.flush()
    if status == 0:
        assert err.getvalue() == ""
    else:
        assert len(sentence_of(err.getvalue())) < 2000
    return status == 0


@fuzz(200)
@given(data=st.data())
def test_random_structure(data, good, data_folder):
    content = data.draw(spoilt(lambda: json.loads(good[0])))
    outcome(json.dumps(content).encode(), good, data_folder / "train2017")


BYTES = [b"9" * 5000, b"1e999", b"NaN", b"-Infinity", b"[" * 2000, b'{"a":' * 2000, b"\\ud800", b"\\u0000", b"\xef\xbb\xbf"]


@fuzz(150)
@given(data=st.data())
def test_random_bytes(data, good, data_folder):
    content = bytearray(good[0].encode())
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(content)))
        end = start + data.draw(st.sampled_from([0, 1, 1, 1, 2, 50]))
        content[start:end] = data.draw(st.one_of(st.binary(max_size=4), st.sampled_from(BYTES)))
    outcome(bytes(content), good, data_folder / "train2017")


def use_lists(settings):
    """Run the code that uses the data sets of a configuration before the network in training and evaluation."""
    set_up_logging()
    cfg = configuration(**settings)
    dataset = open_training_set(cfg, SingleProcess())
    check_rows(TrainLoader(dataset, cfg))
    validation = open_validation_set(cfg, SingleProcess(), dataset.names)
    check_rows(EvalLoader(validation, cfg))
    score_one_box(validation)


@st.composite
def parts(draw, text, folder):
    """Return a list of annotation files in `folder`, some of them damaged, with other classes, without boxes or missing."""
    names = []
    for number in range(draw(st.integers(1, 3))):
        content = json.loads(text)
        kind = draw(st.sampled_from([*["good"] * 6, "renamed", "renamed", "spoilt", "empty", "missing"]))
        if kind == "renamed":
            for category in content["categories"]:
                category["name"] = draw(st.sampled_from(["circle", "star", "moon", "sun"]))
        elif kind == "empty":
            content["annotations"] = []
        elif kind == "spoilt":
            content = draw(spoilt(lambda: json.loads(text)))
        names.append(f"annotations/fuzz{number if kind != 'missing' else 'gone'}.json")
        if kind != "missing":
            (folder / names[-1]).write_text(json.dumps(content))
    return draw(st.sampled_from([names, names[0]]))


def test_random_lists_of_files(good, data_folder):
    passed = []

    @fuzz(150)
    @given(data=st.data())
    def draw_and_use(data):
        files = data.draw(parts(good[0], data_folder))
        folders = ["train2017"] * len(files) if isinstance(files, list) else "train2017"
        settings = {
            "data__dataset_dir": str(data_folder), "data__draw_shapes": None, "data__train_anno_path": files,
            "data__train_img_dir": data.draw(st.sampled_from([*[folders] * 12, ["train2017"], "val2017", [], ["gone", "."]])),
            "data__val_img_dir": "train2017",
            "data__val_anno_path": data.draw(st.sampled_from([*["annotations/fuzz0.json"] * 9, "annotations/fuzzgone.json"])),
            "data__unite_classes": data.draw(st.sampled_from([True, True, False])),
            "data__keep_empty_images": data.draw(st.booleans()),
            "data__repeat_threshold": data.draw(st.sampled_from([0, 0.5, 1])),
            "data__classes": data.draw(st.sampled_from([None, None, ["circle"], ["triangle", "circle"], ["star"], ["moon"] * 2]))}
        passed.append(finish(lambda: use_lists(settings)))

    draw_and_use()
    assert 0.2 < sum(passed) / len(passed) < 0.9
