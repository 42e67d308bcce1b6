"""COCO numbers of random data compared with plain pycocotools, and worked examples of incomplete or invalid data."""
import json
import logging

import numpy as np
import pytest

from src.evaluation.coco import KEYS, result_rows, score
from tests.helpers.coco_cases import CATEGORIES, KINDS, plain_pycocotools, random_case

SMALL, MEDIUM, LARGE = [10, 10, 20, 20], [50, 50, 50, 50], [20, 20, 120, 100]


@pytest.fixture(autouse=True)
def _log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("faster_rcnn"), "propagate", True)
    caplog.set_level(logging.INFO, "faster_rcnn")


def truth(*rows):
    """Return an annotation file with (image_id, category_id, bbox, further keys) rows, without id, area and iscrowd."""
    return {"annotations": [{"image_id": image, "category_id": category, "bbox": box, **(more[0] if more else {})}
                            for image, category, box, *more in rows]}


def detections(*rows):
    return [{"image_id": image, "category_id": category, "bbox": box, "score": value}
            for image, category, box, value in rows]


def score_one_class(coco_json, results, image_ids=(1,)):
    return score(coco_json, results, list(image_ids), ["thing"], [7]).metrics


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_plain_pycocotools(kind, seed):
    coco_json, results, images = random_case([seed, len(kind)], **KINDS[kind])
    expected = plain_pycocotools(coco_json, results)
    evaluation = score(coco_json, results, images, [str(category) for category in CATEGORIES], CATEGORIES)
    # All combinations of threshold, area and limit. The twelve numbers use only some of them.
    np.testing.assert_allclose(evaluation.precision, expected.eval["precision"], rtol=0, atol=1e-12)
    np.testing.assert_allclose([evaluation.metrics[key] for key in KEYS], expected.stats, rtol=0, atol=1e-12)
    for column, category in enumerate(sorted(CATEGORIES)):
        values = expected.eval["precision"][:, :, column, 0, -1]
        wanted = values[values > -1].mean() if (values > -1).any() else -1
        assert evaluation.metrics["per_class"][str(category)] == pytest.approx(wanted, abs=1e-12)


def test_perfect_detections():
    coco_json = truth((1, 7, SMALL), (1, 7, MEDIUM), (2, 7, LARGE))
    results = detections((1, 7, SMALL, 0.9), (1, 7, MEDIUM, 0.8), (2, 7, LARGE, 0.7))
    metrics = score_one_class(coco_json, results, (1, 2))
    for key in set(KEYS) - {"AR1"}:
        assert metrics[key] == pytest.approx(1.0), key
    assert metrics["AR1"] == pytest.approx(2 / 3)  # the best detection of each image finds two of three objects
    assert metrics["images"] == 2
    assert metrics["per_class"] == {"thing": pytest.approx(1.0)}


def test_no_detection_gives_zeros():
    metrics = score_one_class(truth((1, 7, SMALL), (1, 7, MEDIUM), (1, 7, LARGE)), [])
    assert [metrics[key] for key in KEYS] == [0.0] * 12
    assert metrics["per_class"] == {"thing": 0.0}


def test_nothing_of_a_kind_is_minus_one():
    metrics = score(truth((1, 7, MEDIUM)), detections((1, 7, MEDIUM, 0.9)), [1], ["thing", "other"], [7, 8]).metrics
    assert [metrics[key] for key in ("APs", "APl", "ARs", "ARl")] == [-1.0] * 4
    assert metrics["AP"] == pytest.approx(1.0)  # over the only class with ground truth
    assert metrics["per_class"] == {"thing": pytest.approx(1.0), "other": -1.0}
    empty = score({}, [], [1], ["thing"], [7]).metrics
    assert [empty[key] for key in KEYS] == [-1.0] * 12


def test_missing_keys_are_completed_without_touching_the_caller():
    coco_json = truth((1, 7, SMALL), (1, 7, MEDIUM, {"area": float("nan"), "iscrowd": None}), (1, 7, LARGE, {"id": 0}))
    results = detections((1, 7, SMALL, 0.9), (1, 7, MEDIUM, 0.8), (1, 7, LARGE, 0.7))
    before = json.dumps(coco_json), json.dumps(results)
    metrics = score_one_class(coco_json, results)
    assert (json.dumps(coco_json), json.dumps(results)) == before
    assert [metrics[key] for key in ("AP", "APs", "APm", "APl")] == [pytest.approx(1.0)] * 4


@pytest.mark.parametrize("ids", [(0, 1), (5, 5), (-1, 2)])
def test_odd_annotation_ids_do_not_lose_matches(ids):
    coco_json = truth((1, 7, SMALL, {"id": ids[0]}), (1, 7, LARGE, {"id": ids[1]}))
    assert score_one_class(coco_json, detections((1, 7, SMALL, 0.9), (1, 7, LARGE, 0.8)))["AP"] == pytest.approx(1.0)


def test_only_the_given_images_count(caplog):
    coco_json = truth((1, 7, MEDIUM), (2, 7, MEDIUM), (2, 7, [0, 0, -5, 5]))
    results = detections((1, 7, MEDIUM, 0.5), (2, 7, LARGE, 0.9))
    assert score_one_class(coco_json, results, (1,))["AP"] == pytest.approx(1.0)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert score_one_class(coco_json, results, (2,))["AP"] == 0.0


def test_invalid_boxes_are_left_out_and_counted_once(caplog):
    bad = [[0, 0, -1, 5], [0, 0, float("nan"), 5], [float("inf"), 0, 5, 5], None, [1, 2, 3], [0, 0, "5", 5]]
    coco_json = truth((1, 7, MEDIUM), *[(1, 7, box) for box in bad])
    assert score_one_class(coco_json, detections((1, 7, MEDIUM, 0.9)))["AR100"] == pytest.approx(1.0)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1 and warnings[0].startswith("6 annotations")


def test_summary_is_logged_once_and_nothing_else_is_printed(caplog, capsys):
    score_one_class(truth((1, 7, MEDIUM)), detections((1, 7, MEDIUM, 0.9)))
    assert capsys.readouterr().out == ""
    [record] = caplog.records
    title, *lines = record.getMessage().split("\n")
    assert title == "COCO numbers of 1 images:" and len(lines) == 12
    assert lines[0] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 1.000"
    assert lines[11] == " Average Recall     (AR) @[ IoU=0.50:0.95 | area= large | maxDets=100 ] = -1.000"


def test_per_class_follows_names_when_ids_are_unsorted_or_names_repeat():
    coco_json = truth((1, 9, MEDIUM), (1, 2, SMALL), (1, 5, LARGE))
    results = detections((1, 9, MEDIUM, 0.9), (1, 5, LARGE, 0.9))
    evaluation = score(coco_json, results, [1], ["a", "b", "a"], [9, 2, 5])
    metrics, one = evaluation.metrics, pytest.approx(1.0)
    assert metrics["per_class"] == {"a (9)": one, "b": 0.0, "a (5)": one}
    assert metrics["AP"] == pytest.approx(2 / 3)
    assert evaluation.class_names == ["b", "a (5)", "a (9)"]  # sorted by category id, as in evaluation.precision
    assert evaluation.results is results


def test_result_rows_lose_nothing():
    boxes = np.array([[0.1, 0.2, 100.3, 50.7], [3, 4, 10, 12]], np.float32)
    rows = result_rows(42, boxes, np.array([0.3, 0.25], np.float32), np.array([1, 0]), [3, 90])
    assert rows[1] == {"image_id": 42, "category_id": 3, "bbox": [3.0, 4.0, 7.0, 8.0], "score": 0.25}
    first = json.loads(json.dumps(rows[0]))
    assert (first["category_id"], np.float32(first["score"])) == (90, np.float32(0.3))
    x, y, width, height = first["bbox"]
    np.testing.assert_array_equal(np.array([x, y, x + width, y + height], np.float32), boxes[0])
