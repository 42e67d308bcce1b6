"""src/report/evaluation.py: images, and missing values. tests/integration/report compares the numbers of the page."""
import base64
from pathlib import Path

import cv2
import numpy as np
import pytest

from src.config import Config
from src.errors import UserError
from src.report import evaluation
from src.report.error_analysis import sort_by_image
from src.report.evaluation import THUMBNAIL_SIDE, match_boxes, thumbnail, write_evaluation_report
from tests.helpers.reports import contents_of, evaluated


def written(case, folder):
    write_evaluation_report(str(folder), case.evaluation, match_boxes(case.evaluation), case.dataset, Config(), "some.ckpt")
    return contents_of(folder / "report.html")


def test_gallery_starts_with_the_most_expensive_images(case, tmp_path, monkeypatch):
    first = match_boxes(case.evaluation)[0]
    costs = first.costs(30, first.threshold)
    monkeypatch.setattr(evaluation, "MAX_IMAGES", 4)
    images = written(case, tmp_path)["gallery"]
    np.testing.assert_array_equal(costs[[image["image"] for image in images]], np.sort(costs)[:-5:-1])
    for image in images:
        for shown, boxes in zip(image["boxes"], sort_by_image(case.evaluation.ground_truth, case.evaluation.detections)):
            np.testing.assert_allclose(shown.reshape(-1, 4), boxes.xywh[boxes.image == image["image"]], atol=0.051)


def test_unreadable_and_skipped_images(case, tmp_path):
    broken, skipped = case.dataset.records[1], case.dataset.records[4]
    Path(broken.path).write_bytes(b"damaged")
    case.evaluation = evaluated(case.dataset, skipped=[skipped.image_id])
    page = written(case, tmp_path)
    pictures = {image["id"]: image["jpeg"] for image in page["gallery"]}
    assert page["skipped"] == 1 and skipped.image_id not in pictures and len(pictures) == 29
    assert [image_id for image_id, jpeg in pictures.items() if jpeg is None] == [broken.image_id]


def test_thumbnails(tmp_path, case):
    image = np.zeros((300, 2 * THUMBNAIL_SIDE, 3), np.uint8)
    image[:, :THUMBNAIL_SIDE] = 10, 200, 90
    cv2.imwrite(str(tmp_path / "a.png"), image)
    record = case.dataset.records[0]
    large = record._replace(path=str(tmp_path / "a.png"), height=300, width=2 * THUMBNAIL_SIDE)
    small, same = (cv2.imdecode(np.frombuffer(base64.b64decode(thumbnail(one)), np.uint8), cv2.IMREAD_COLOR)
                   for one in (large, record))
    assert small.shape == (150, THUMBNAIL_SIDE, 3) and same.shape == (96, 128, 3)
    np.testing.assert_allclose(small[75, 100], (10, 200, 90), atol=4)


def test_nothing_annotated_and_nothing_detected(case, tmp_path):
    case.dataset.coco_json["annotations"] = []
    case.evaluation = evaluated(case.dataset)
    case.evaluation = case.evaluation._replace(detections=case.evaluation.detections.select(np.zeros(0, int)))
    page = written(case, tmp_path)
    [detector] = page["detectors"]
    assert detector["threshold"] == 0 and detector["classes"][-1]["precision"] is None and len(page["gallery"]) == 30


def test_unwritable_report_is_one_sentence(case, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UserError, match=r"the report could not be written into .* \(Is a directory\); make room"):
        written(case, tmp_path)
