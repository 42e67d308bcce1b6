"""Reading of COCO files. For files that are refused, see tests/integration/bad_input/test_bad_annotations.py."""
import logging
import os

import numpy as np
import pytest

from src.dataset.annotations import load_coco

IMAGE = {"id": 9, "file_name": "a.png", "height": 40, "width": 60}
OTHER = {"id": 4, "file_name": "b.png", "height": 30, "width": 20}


def annotation(bbox, category_id=5, image_id=9, **more):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


def test_records_follow_the_file_and_labels_follow_ascending_category_ids(write_coco, caplog):
    path, folder = write_coco([IMAGE, OTHER], [annotation([1, 2, 3, 4], 5), annotation([5, 6, 7.5, 8], 2, 4),
                                               annotation([10, 20, 30, 10], 2)])
    with caplog.at_level(logging.INFO, "faster_rcnn"):
        dataset = load_coco(path, folder)
    assert dataset.names == ["dog", "cat"] and dataset.category_ids == [2, 5]
    assert [(r.image_id, r.height, r.width) for r in dataset.records] == [(9, 40, 60), (4, 30, 20)]
    assert dataset.records[0].path == os.path.join(folder, "a.png")
    np.testing.assert_array_equal(dataset.records[0].boxes, [[1, 2, 4, 6], [10, 20, 40, 30]])
    np.testing.assert_array_equal(dataset.records[0].labels, [1, 0])
    np.testing.assert_array_equal(dataset.records[1].boxes, [[5, 6, 12.5, 14]])
    assert dataset.records[1].boxes.dtype == np.float32 and dataset.records[1].labels.dtype == np.int32
    assert dataset.annotation_path == path and not caplog.records


def test_dropped_and_clipped_boxes_are_counted_in_one_line_of_the_log(write_coco, caplog):
    boxes = [annotation([1, 1, 5, 5], iscrowd=1), annotation([1, 1, -5, 5]), annotation([1, 1, 0, 5]),
             annotation([1, 1, 5, 0.001]), annotation([float("nan"), 1, 5, 5]), annotation([1, 1, float("inf"), 5]),
             annotation([60, 1, 5, 5]), annotation([-9, 1, 9, 5]), annotation([1, 50, 5, 5]),
             annotation([-4, 30, 10, 20]), annotation([50, -1, 20, 6]), annotation([1, 1, 5, 5])]
    path, folder = write_coco([IMAGE], boxes)
    with caplog.at_level(logging.INFO, "faster_rcnn"):
        dataset = load_coco(path, folder)
    np.testing.assert_array_equal(dataset.records[0].boxes, [[0, 30, 6, 40], [50, 0, 60, 5], [1, 1, 6, 6]])
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 1 crowd boxes (they do not train), 2 boxes with a coordinate that is not finite (dropped), 1 boxes of negative "
        "width or height (dropped), 2 empty boxes (dropped), 3 boxes outside their image (dropped), 2 boxes partly outside their "
        "image (clipped)"]


def test_parsed_file_is_completed_for_pycocotools(write_coco):
    """Annotations are renumbered from 1. An area that is not a number of a possible size is computed."""
    path, folder = write_coco([IMAGE], [annotation([1, 1, 5, 5], id=7, segmentation=[[1, 2, 3, 4, 5, 6]]),
                                        annotation([1, 1, 4, 5], id=None, area=12.5, iscrowd=1)])
    first, second = load_coco(path, folder).coco_json["annotations"]
    assert first == {"id": 1, "image_id": 9, "category_id": 5, "bbox": [1, 1, 5, 5], "iscrowd": 0, "area": 25.0}
    assert second["id"] == 2 and second["area"] == 12.5 and second["iscrowd"] == 1
    areas = [10**400, float("nan"), float("-inf"), "12", None, True, [1]]
    path, folder = write_coco([IMAGE], [annotation([1, 1, 4, 5], area=area) for area in areas])
    assert [row["area"] for row in load_coco(path, folder).coco_json["annotations"]] == [20.0] * 7


@pytest.mark.parametrize(("there", "asked"), [("annotation", "annotations"), ("annotations", "annotation")])
def test_folder_may_be_called_annotation_or_annotations(write_coco, there, asked):
    """The file starts with a byte order mark."""
    path, folder = write_coco([IMAGE], [], folder=there)
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(b"\xef\xbb\xbf" + content)
    wanted = os.path.join(os.path.dirname(os.path.dirname(path)), asked, "instances.json")
    assert load_coco(wanted, folder).annotation_path == path
