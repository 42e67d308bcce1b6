"""What eval.py adds to the scores: precision-recall curves against plain pycocotools, and the files."""
import logging
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from src.evaluation.analysis import precision_curves, write_analysis
from src.evaluation.coco import boxes_of
from tests.unit.evaluation.test_coco_equality import CATEGORIES, KINDS, plain_pycocotools, random_case


@pytest.mark.parametrize("kind", KINDS)
def test_curves_are_those_of_pycocotools(kind):
    coco_json, results, images = random_case([1, len(kind)], **KINDS[kind])
    evaluation = plain_pycocotools(coco_json, results)
    truth, found, _ = boxes_of(coco_json, results, images, CATEGORIES)
    recalls, precision = precision_curves(truth, found, len(CATEGORIES))
    np.testing.assert_array_equal(recalls, evaluation.params.recThrs)
    # IoU 0.50 and 0.75, all areas, 100 detections.
    np.testing.assert_array_equal(precision, evaluation.eval["precision"][[0, 5], :, :, 0, 2])


@pytest.fixture
def case():
    """A data set whose classes are not in the order of their ids, and its detections."""
    coco_json, results, images = random_case(7)
    names = [f"class {category}" for category in CATEGORIES]
    dataset = SimpleNamespace(coco_json=coco_json, records=[SimpleNamespace(image_id=image) for image in images],
                              names=names, category_ids=CATEGORIES)
    return dataset, results, images


def test_files_and_names(case, tmp_path):
    dataset, results, images = case
    errors = write_analysis(str(tmp_path / "eval"), dataset, {"skipped_image_ids": []}, results)
    for name in ("precision_recall.png", "errors.png"):
        assert cv2.imread(str(tmp_path / "eval" / name)) is not None
    wanted = {name: sum(row["category_id"] == category and not row["iscrowd"] for row in dataset.coco_json["annotations"])
              for name, category in zip(dataset.names, CATEGORIES)}
    assert {name: sum(part["ground_truth"].values()) for name, part in errors["per_class"].items()} == wanted
    assert max(wanted.values()) > 2 and errors["detections"]["correct"] > 0


def test_skipped_images_do_not_count(case, tmp_path):
    dataset, results, images = case
    skipped = images[::2]
    errors = write_analysis(str(tmp_path), dataset, {"skipped_image_ids": skipped}, results)
    wanted = sum(row["image_id"] not in skipped and not row["iscrowd"] for row in dataset.coco_json["annotations"])
    assert sum(errors["ground_truth"].values()) == wanted


def test_a_image_that_cannot_be_written_is_reported(case, tmp_path, caplog, monkeypatch):
    dataset, results, _ = case
    (tmp_path / "errors.png").mkdir()
    monkeypatch.setattr(logging.getLogger("faster_rcnn"), "propagate", True)
    errors = write_analysis(str(tmp_path), dataset, {"skipped_image_ids": []}, results)
    assert errors["detections"]["correct"] > 0 and (tmp_path / "precision_recall.png").is_file()
    assert [record.levelname for record in caplog.records] == ["ERROR"] and "errors.png could not be drawn" in caplog.text
