"""Random damage to a good annotation file. The result is a data set that trains and is evaluated, or one error message."""
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

from src.dataset.loader import EvalLoader, TrainLoader
from src.dataset.splits import open_training_set, open_validation_set
from src.evaluation.coco import result_rows, score
from src.run.distributed import SingleProcess
from src.run.launch import run, set_up_logging
from tests.helpers.fuzz_profile import fuzz, spoilt
from tests.helpers.sentences import sentence_of
from tests.helpers.tiny_networks import tiny_config


@pytest.fixture(scope="module")
def good(data_folder):
    """The text of a small file with two images, three boxes and three classes, and a path that tests overwrite."""
    content = json.loads((data_folder / "annotations" / "instances_train2017.json").read_text())
    annotations = [{"id": number, "image_id": image, "category_id": category, "bbox": [5 * number, 9, 20, 30], "area": 600,
                    "iscrowd": 0, "segmentation": [[1, 2, 3, 4, 5, 6]]}
                   for number, (image, category) in enumerate([(1, 3), (1, 18), (2, 7)], 1)]
    return json.dumps({"images": content["images"][:2], "annotations": annotations, "categories": content["categories"][:3],
                       "info": {"year": 2024}}), data_folder / "annotations" / "fuzz.json"


def use(folder):
    """Run the code that uses data sets in training and evaluation before and after the network."""
    set_up_logging()
    cfg = tiny_config(num_workers=1, batch_size=1, data__dataset_dir=str(folder), data__draw_shapes=None,
                      data__train_anno_path="annotations/fuzz.json", data__train_img_dir="train2017",
                      data__val_anno_path="annotations/fuzz.json", data__val_img_dir="train2017")
    training = open_training_set(cfg, SingleProcess())
    validation = open_validation_set(cfg, SingleProcess(), training.names)
    check_rows(EvalLoader(validation, cfg))
    score_one_box(validation)
    check_rows(TrainLoader(training, cfg))


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


def finish(folder):
    """Use the data set like the scripts; fails unless this succeeds or prints one sentence."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # NumPy's warnings would be lines on standard error
        status = run(lambda *_: use(folder), lambda: None)
        logging.getLogger("faster_rcnn").handlers = []
    out.flush()
    assert err.getvalue() == "" if status == 0 else len(sentence_of(err.getvalue())) < 2000


@fuzz(200)
@given(data=st.data())
def test_random_structure(data, good, data_folder):
    content = data.draw(spoilt(lambda: json.loads(good[0])))
    good[1].write_text(json.dumps(content))
    finish(data_folder)


BYTES = [b"9" * 5000, b"1e999", b"NaN", b"-Infinity", b"[" * 2000, b'{"a":' * 2000, b"\\ud800", b"\\u0000", b"\xef\xbb\xbf"]


@fuzz(150)
@given(data=st.data())
def test_random_bytes(data, good, data_folder):
    content = bytearray(good[0].encode())
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(content)))
        end = start + data.draw(st.sampled_from([0, 1, 1, 1, 2, 50]))
        content[start:end] = data.draw(st.one_of(st.binary(max_size=4), st.sampled_from(BYTES)))
    good[1].write_bytes(content)
    finish(data_folder)
