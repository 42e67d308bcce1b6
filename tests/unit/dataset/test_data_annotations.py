import json
import logging
import os

import numpy as np
import pytest

from src.dataset.annotations import load_coco
from src.errors import UserError
from tests.helpers.paths import ROOT

IMAGE = {"id": 9, "file_name": "a.png", "height": 40, "width": 60}
OTHER = {"id": 4, "file_name": "b.png", "height": 30, "width": 20}


def annotation(bbox, category_id=5, image_id=9, **more):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


def test_records_follow_the_file_and_labels_follow_ascending_category_ids(write_coco):
    path, folder = write_coco([IMAGE, OTHER], [annotation([1, 2, 3, 4], 5), annotation([5, 6, 7.5, 8], 2, 4),
                                               annotation([10, 20, 30, 10], 2)])
    dataset = load_coco(path, folder)
    assert dataset.names == ["dog", "cat"] and dataset.category_ids == [2, 5]
    assert [(r.image_id, r.height, r.width) for r in dataset.records] == [(9, 40, 60), (4, 30, 20)]
    assert dataset.records[0].path == os.path.join(folder, "a.png")
    np.testing.assert_array_equal(dataset.records[0].boxes, [[1, 2, 4, 6], [10, 20, 40, 30]])
    np.testing.assert_array_equal(dataset.records[0].labels, [1, 0])
    np.testing.assert_array_equal(dataset.records[1].boxes, [[5, 6, 12.5, 14]])
    assert dataset.records[1].boxes.dtype == np.float32 and dataset.records[1].labels.dtype == np.int32
    assert dataset.annotation_path == path and not any(dataset.drops.values())


def test_each_kind_of_drop_is_counted_and_logged_in_one_line(write_coco, caplog):
    boxes = [annotation([1, 1, 5, 5], iscrowd=1), annotation([1, 1, -5, 5]), annotation([1, 1, 0, 5]),
             annotation([1, 1, 5, 0.001]), annotation([float("nan"), 1, 5, 5]), annotation([1, 1, float("inf"), 5]),
             annotation([60, 1, 5, 5]), annotation([-9, 1, 9, 5]), annotation([1, 50, 5, 5]),
             annotation([-4, 30, 10, 20]), annotation([50, -1, 20, 6]), annotation([1, 1, 5, 5])]
    path, folder = write_coco([IMAGE], boxes)
    with caplog.at_level(logging.INFO, "faster_rcnn"):
        dataset = load_coco(path, folder)
    assert dataset.drops == {"crowd": 1, "negative": 1, "empty": 2, "non_finite": 2, "outside": 3, "clipped": 2}
    np.testing.assert_array_equal(dataset.records[0].boxes, [[0, 30, 6, 40], [50, 0, 60, 5], [1, 1, 6, 6]])
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    for part in (path, "1 crowd", "1 boxes of negative", "2 empty", "2 boxes with", "3 boxes outside",
                 "2 boxes partly"):
        assert part in message


def test_ids_of_annotations_may_be_missing_and_are_counted_anew(write_coco):
    boxes = [annotation([1, 1, 5, 5], id=7), annotation([1, 1, 5, 5]), annotation([1, 1, 5, 5], id=None),
             annotation([1, 1, 5, 5], id=3)]
    dataset = load_coco(*write_coco([IMAGE], boxes))
    assert [row["id"] for row in dataset.coco_json["annotations"]] == [1, 2, 3, 4]


def test_areas_that_are_no_numbers_are_computed(write_coco):
    areas = [12.5, 10**400, float("nan"), float("-inf"), "12", None, True, [1]]
    path, folder = write_coco([IMAGE], [annotation([1, 1, 4, 5], area=area) for area in areas])
    rows = load_coco(path, folder).coco_json["annotations"]
    assert [row["area"] for row in rows] == [12.5] + [20.0] * 7


def test_a_byte_order_mark_does_no_harm(write_coco):
    path, folder = write_coco([IMAGE], [annotation([1, 1, 5, 5])])
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(b"\xef\xbb\xbf" + content)
    assert len(load_coco(path, folder).records) == 1


def test_clean_annotations_log_nothing(write_coco, caplog):
    with caplog.at_level(logging.INFO, "faster_rcnn"):
        load_coco(*write_coco([IMAGE], [annotation([1, 1, 5, 5])]))
    assert not caplog.records


def test_parsed_file_is_completed_for_pycocotools(write_coco):
    path, folder = write_coco([IMAGE], [annotation([1, 1, 5, 5], segmentation=[[1, 2, 3, 4, 5, 6]]),
                                        annotation([1, 1, 4, 5], area=12.5, iscrowd=1)])
    first, second = load_coco(path, folder).coco_json["annotations"]
    assert first == {"id": 1, "image_id": 9, "category_id": 5, "bbox": [1, 1, 5, 5], "iscrowd": 0, "area": 25.0}
    assert second["id"] == 2 and second["area"] == 12.5 and second["iscrowd"] == 1


@pytest.mark.parametrize(("there", "asked"), [("annotation", "annotations"), ("annotations", "annotation")])
def test_folder_may_be_called_annotation_or_annotations(write_coco, there, asked):
    path, folder = write_coco([IMAGE], [], folder=there)
    wanted = os.path.join(os.path.dirname(os.path.dirname(path)), asked, "instances.json")
    assert load_coco(wanted, folder).annotation_path == path


GOOD = annotation([1, 1, 5, 5])
CATEGORY = {"id": 5, "name": "cat"}
BAD_CONTENT = {
    "unknown image": ([IMAGE], [GOOD, annotation([1, 1, 5, 5], image_id=77)], None, r"number 1 of .*image_id 77"),
    "unknown category": ([IMAGE], [annotation([1, 1, 5, 5], category_id=3)], None, r"number 0 of .*category_id 3"),
    "list as image id": ([IMAGE], [annotation([1, 1, 5, 5], image_id=[9])], None, r"image_id \[9\]"),
    "no bbox": ([IMAGE], [{"image_id": 9, "category_id": 5}], None, "number 0 .*no 'bbox'"),
    "no image_id": ([IMAGE], [{"bbox": [1, 1, 2, 2], "category_id": 5}], None, "no 'image_id'"),
    "annotation no object": ([IMAGE], [GOOD, 7], None, "number 1 .*not an object"),
    "three numbers": ([IMAGE], [GOOD, annotation([1, 2, 3])], None, r"number 1 .*\[1, 2, 3\]"),
    "texts as numbers": ([IMAGE], [annotation(["1", "2", "3", "4"])], None, "number 0 .*bbox"),
    "bbox null": ([IMAGE], [annotation(None)], None, "bbox None"),
    "huge number": ([IMAGE], [annotation([10 ** 400, 1, 1, 1])], None, "too large"),
    "duplicate image id": ([IMAGE, {**OTHER, "id": 9}], [], None, "repeats the id 9"),
    "duplicate category id": ([IMAGE], [], [CATEGORY, {"id": 5, "name": "dog"}], "repeats the id 5"),
    "text as image id": ([{**IMAGE, "id": "9"}], [], None, "the id '9'"),
    "no width": ([{"id": 9, "file_name": "a.png", "height": 40}], [], None, "width None"),
    "height zero": ([{**IMAGE, "height": 0}], [], None, "height 0"),
    "no file_name": ([{"id": 9, "height": 40, "width": 60}], [], None, "file_name None"),
    "category without name": ([IMAGE], [], [{"id": 5}], "name None"),
    "no images": ([], [], None, "empty list 'images'"),
    "parent folder": ([{**IMAGE, "file_name": "sub/../../a.png"}], [], None, "leads out of the image folder"),
    "parent folder, other slash": ([{**IMAGE, "file_name": "..\\a.png"}], [], None, "leads out of the image folder"),
    "absolute": ([{**IMAGE, "file_name": "/etc/a.png"}], [], None, "leads out of the image folder"),
    "none of the files there": ([IMAGE], [], None, r"None of the first 1 images .*a\.png"),
}


@pytest.mark.parametrize("name", BAD_CONTENT)
def test_bad_content_is_one_sentence_that_names_file_and_offender(write_coco, name):
    images, annotations, categories, message = BAD_CONTENT[name]
    path, folder = write_coco(images, annotations, categories, draw=False)
    with pytest.raises(UserError, match=message) as error:
        load_coco(path, folder)
    assert path in str(error.value)


@pytest.mark.parametrize(("content", "message"), [
    ("{", "not valid JSON"), ("[]", "no list 'images'"), ('{"images": []}', "no list 'annotations'"),
    (json.dumps({"images": [], "annotations": {}, "categories": []}), "no list 'annotations'"),
    ("[" * 100000, "not valid JSON"), (b"\xff\xfe\x00", "not valid JSON")])
def test_files_that_are_not_coco(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        load_coco(str(path), str(tmp_path))


def test_missing_file_and_folder(write_coco, tmp_path):
    path, folder = write_coco([IMAGE], [])
    with pytest.raises(UserError, match="image folder .*nowhere does not exist"):
        load_coco(path, str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="annotations/no.json .*annotation/no.json.* does not exist"):
        load_coco(str(tmp_path / "annotations" / "no.json"), folder)


def test_real_photographs_when_they_are_there():
    root = str(ROOT.parent / "shared" / "data" / "bccd")
    if not os.path.isdir(root):
        pytest.skip("the BCCD data set is not beside the repository")
    datasets = [load_coco(os.path.join(root, "annotations", f"instances_{split}.json"), os.path.join(root, split))
                for split in ("train2017", "val2017")]
    assert [len(dataset.records) for dataset in datasets] == [292, 72]
    assert all(len(dataset.names) == 3 for dataset in datasets)
    assert sum(dataset.drops["empty"] for dataset in datasets) == 2
