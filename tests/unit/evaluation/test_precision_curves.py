"""Additions of eval.py to the scores: precision-recall curves compared with plain pycocotools, and files."""
import logging

import cv2
import numpy as np

from src.evaluation.analysis import precision_curves, write_analysis
from src.evaluation.coco import score
from tests.helpers.coco_cases import CATEGORIES, plain_pycocotools, random_case

NAMES = [f"class {category}" for category in CATEGORIES]  # not sorted by id


def test_curves_are_those_of_pycocotools():
    coco_json, results, images = random_case(1, images=4, hits=15, misses=60, crowded=0.7)  # more than 100 detections per class
    expected = plain_pycocotools(coco_json, results)
    recalls, precision = precision_curves(score(coco_json, results, images, NAMES, CATEGORIES).precision)
    np.testing.assert_array_equal(recalls, expected.params.recThrs)
    # IoU 0.50 and 0.75, all areas, 100 detections.
    np.testing.assert_array_equal(precision, expected.eval["precision"][[0, 5], :, :, 0, 2])


def test_files_and_names(tmp_path):
    coco_json, results, images = random_case(7)
    errors = write_analysis(str(tmp_path / "eval"), score(coco_json, results, images, NAMES, CATEGORIES))
    for name in ("precision_recall.png", "errors.png"):
        assert cv2.imread(str(tmp_path / "eval" / name)) is not None
    wanted = {name: sum(row["category_id"] == category and not row["iscrowd"] for row in coco_json["annotations"])
              for name, category in zip(NAMES, CATEGORIES)}
    assert {name: sum(part["ground_truth"].values()) for name, part in errors["per_class"].items()} == wanted
    assert max(wanted.values()) > 2 and errors["detections"]["correct"] > 0


def test_only_images_that_were_scored_count(tmp_path):
    coco_json, results, images = random_case(7)
    errors = write_analysis(str(tmp_path), score(coco_json, results, images[1::2], NAMES, CATEGORIES))
    wanted = sum(row["image_id"] in images[1::2] and not row["iscrowd"] for row in coco_json["annotations"])
    assert sum(errors["ground_truth"].values()) == wanted


def test_an_image_that_cannot_be_written_is_reported(tmp_path, caplog, monkeypatch):
    evaluation = score(*random_case(7), NAMES, CATEGORIES)
    (tmp_path / "errors.png").mkdir()
    monkeypatch.setattr(logging.getLogger("faster_rcnn"), "propagate", True)
    errors = write_analysis(str(tmp_path), evaluation)
    assert errors["detections"]["correct"] > 0 and (tmp_path / "precision_recall.png").is_file()
    assert [record.levelname for record in caplog.records] == ["ERROR"] and "errors.png could not be drawn" in caplog.text
