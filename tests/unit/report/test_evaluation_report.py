"""src/report/evaluation_report.py: the data of an evaluation's page."""
import base64
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from src.errors import UserError
from src.report import contents
from src.report.error_analysis import DETECTION_KINDS, error_breakdown, sort_by_image
from src.report.evaluation_report import write_evaluation_report
from src.report.thumbnails import SIDE, thumbnail
from tests.helpers.reports import contents_of, evaluated


def written(case, folder, **more):
    write_evaluation_report(str(folder), case.evaluation, case.dataset, "some.ckpt", **more)
    return contents_of(folder / "report.html")


def unpacked(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)


def test_all_boxes_and_their_kinds_are_there(case, tmp_path):
    page = written(case, tmp_path / "eval")
    truth, found = sort_by_image(case.evaluation.ground_truth, case.evaluation.detections)
    [detector] = page["detectors"]
    assert page["images"] == 30 and page["names"] == case.evaluation.class_names and detector["label"] == "some.ckpt"
    assert unpacked(detector["score"], np.float32).astype(np.float64).tolist() == found.score.tolist()
    assert unpacked(detector["category"], np.uint16).tolist() == found.category.tolist()
    assert np.diff(unpacked(detector["starts"], np.uint32)).tolist() == np.bincount(found.image, minlength=30).tolist()
    assert np.diff(unpacked(page["truth"]["starts"], np.uint32)).tolist() == np.bincount(truth.image, minlength=30).tolist()
    assert unpacked(page["truth"]["crowd"], np.uint8).sum() == 1
    errors = error_breakdown(truth, found, case.evaluation.class_names)
    kinds = unpacked(detector["kind"], np.uint8)[found.score >= detector["threshold"]]
    assert detector["threshold"] == errors["score_threshold"]
    assert {name: int((kinds == k).sum()) for k, name in enumerate(DETECTION_KINDS[:-1])} == errors["detections"]


def test_numbers_are_those_of_the_metrics(case, tmp_path):
    [detector] = written(case, tmp_path)["detectors"]
    metrics = case.evaluation.metrics
    assert all(detector["metrics"][key] == metrics[key] for key in detector["metrics"]) and len(detector["metrics"]) == 12
    assert {row["name"]: row["ap"] for row in detector["classes"][:-1]} == metrics["per_class"]
    everything = detector["classes"][-1]
    assert everything["ap50"] == pytest.approx(metrics["AP50"]) and everything["ap75"] == pytest.approx(metrics["AP75"])


def test_the_gallery_has_the_most_expensive_images_first(case, tmp_path, monkeypatch):
    whole = written(case, tmp_path)["gallery"]
    monkeypatch.setattr(contents, "MAX_IMAGES", 4)
    few = written(case, tmp_path)["gallery"]
    assert len(whole["images"]) == 30 and few["images"] == whole["images"][:4]
    truth, found = sort_by_image(case.evaluation.ground_truth, case.evaluation.detections)
    for text, boxes in zip(few["boxes"], (truth, found)):
        expected = np.concatenate([boxes.xywh[boxes.image == image["image"]] for image in few["images"]])
        np.testing.assert_allclose(unpacked(text, np.float32).reshape(-1, 4), expected, atol=0.051)


def test_images_without_a_picture_and_skipped_ones(case, tmp_path):
    broken, skipped = case.dataset.records[1], case.dataset.records[4]
    Path(broken.path).write_bytes(b"spoilt")
    case.evaluation = evaluated(case.dataset, skipped=[skipped.image_id])
    page = written(case, tmp_path)
    pictures = {image["id"]: image["jpeg"] for image in page["gallery"]["images"]}
    assert page["skipped"] == 1 and skipped.image_id not in pictures and len(pictures) == 29
    assert [image_id for image_id, jpeg in pictures.items() if jpeg is None] == [broken.image_id]


def test_a_thumbnail_is_the_image_but_smaller(tmp_path, case):
    image = np.zeros((300, 2 * SIDE, 3), np.uint8)
    image[:, :SIDE] = 10, 200, 90
    cv2.imwrite(str(tmp_path / "a.png"), image)
    record = case.dataset.records[0]._replace(path=str(tmp_path / "a.png"), height=300, width=2 * SIDE)
    small = cv2.imdecode(np.frombuffer(base64.b64decode(thumbnail(record)), np.uint8), cv2.IMREAD_COLOR)
    assert small.shape == (150, SIDE, 3)
    np.testing.assert_allclose(small[75, 100], (10, 200, 90), atol=4)
    same = cv2.imdecode(np.frombuffer(base64.b64decode(thumbnail(case.dataset.records[0])), np.uint8), cv2.IMREAD_COLOR)
    assert same.shape == (96, 128, 3)


def test_sizes_and_shapes_of_boxes(case):
    boxes = case.evaluation.ground_truth.select(np.zeros(7, int))
    sides = [(15, 15), (16, 16), (31, 31), (32, 32), (40, 10), (0, 10), (600, 600)]
    boxes = boxes._replace(xywh=np.array([(0, 0, *side) for side in sides], float), area=np.prod(sides, axis=1).astype(float))
    truth = contents.truth_contents(boxes, 1)
    assert unpacked(truth["side"], np.uint8).tolist() == [0, 1, 1, 2, 1, 0, 7]
    assert unpacked(truth["ratio"], np.uint8).tolist() == [3, 3, 3, 3, 6, 0, 3]


def test_nothing_there_and_nothing_found(case, tmp_path):
    case.dataset.coco_json["annotations"] = []
    case.evaluation = evaluated(case.dataset)._replace(results=[])
    case.evaluation = case.evaluation._replace(detections=case.evaluation.detections.select(np.zeros(0, int)))
    page = written(case, tmp_path)
    assert page["detectors"][0]["threshold"] == 0 and page["detectors"][0]["classes"][-1]["best_score"] is None
    assert page["detectors"][0]["classes"][-1]["precision"] is None and len(page["gallery"]["images"]) == 30


def test_what_cannot_be_written_is_one_sentence(case, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UserError, match=r"the report could not be written into .* \(Is a directory\); make room"):
        written(case, tmp_path)
