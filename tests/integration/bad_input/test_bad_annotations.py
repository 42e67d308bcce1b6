"""Bad annotation files: the error in each file, and the decisive parts of the error message."""
import json
import os

import pytest

from src.dataset.annotations import MAX_BYTES, load_coco
from tests.helpers.sentences import assert_says, refusal

ABSENT = object()

# Path inside a good file, its new value, parts of the error message.
SPOILT = {
    "no categories": ("categories", ABSENT, "list 'categories' is missing"),
    "annotations are a number": ("annotations", 7, "list 'annotations' is missing"),
    "an image is null": ("images.1", None, "number 1 of 'images' is not an object"),
    "an annotation is a text": ("annotations.0", "box", ["number 0 of 'annotations'", "an object with a bbox"]),
    "an image without id": ("images.0.id", ABSENT, "has the id None: a unique integer"),
    "an image with a huge id": ("images.0.id", 10**30, ["has the id 1000000", "at most 63 bits"]),
    "two images with one id": ("images.1.id", 1, "number 1 of 'images' has the id 1: a unique integer"),
    "an annotation of an unknown image": ("annotations.0.image_id", 99, ["number 0", "image_id 99", "from the lists"]),
    "an annotation of an unknown category": ("annotations.1.category_id", 4, ["number 1", "category_id 4"]),
    "an annotation without bbox": ("annotations.0.bbox", ABSENT, ["number 0 of 'annotations'", "bbox"]),
    "a bbox of five numbers": ("annotations.0.bbox", [1, 2, 3, 4, 5], "the bbox [1, 2, 3, 4, 5]: [x, y, width, height]"),
    "a bbox beyond float64": ("annotations.0.bbox", [10**400, 1, 2, 3], "at most 2147483648"),
    "a bbox beyond any image": ("annotations.1.bbox", [1, 1, 1e300, 1e300], ["number 1", "1e+300", "at most 2147483648"]),
    "a crowd by a text": ("annotations.0.iscrowd", "0", "the iscrowd '0': 0 or 1"),
    "a width beyond any image": ("images.0.width", 2**31, "width 2147483648: positive integers below 2147483648"),
    "a file name of a number": ("images.0.file_name", 7, "the file_name 7: a text"),
    "a file name of two lines": ("images.0.file_name", "a.jpg\nINFO all is well", [r"a.jpg\nINFO", "without line ends"]),
    "a file name of half a character": ("images.0.file_name", "\ud800.jpg", [r"\ud800.jpg", "cannot be shown"]),
    "a file name with the folder above": ("images.0.file_name", "a/../../b.jpg", "leads out of the image folder"),
    "a file name with the folder above and another slash": ("images.0.file_name", "..\\b.jpg", "leads out of the image folder"),
    "an absolute file name that never ends": ("images.0.file_name", "/" + "x" * 100_000, ["leads out", "x..."]),
    "a category without name": ("categories.0.name", ABSENT, "(id 3) has the name None: a text"),
}

# The bytes of a file, and a part of the error message.
RAW = {
    "empty": (b"", "JSON: Expecting value"),
    "Latin 1": ('{"images": "é"}'.encode("latin-1"), "codec can't decode"),
    "lists in lists": (b"[" * 1_000_000, "recursion"),
    "detections": (b'[{"image_id": 1, "category_id": 3, "bbox": [1, 1, 2, 2], "score": 0.5}]', "list 'images' is missing"),
}


def refused_file(path, data_folder, capfd):
    sentence = refusal(lambda: load_coco(str(path), str(data_folder / "train2017")), capfd)
    assert str(path) in sentence and len(sentence) < 500
    return sentence


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_annotations(name, coco, data_folder, tmp_path, capfd):
    place, value, parts = SPOILT[name]
    *parents, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    content = coco
    for key in parents:
        content = content[key]
    content[last] = value
    if value is ABSENT:
        del content[last]
    path = tmp_path / "spoilt.json"
    path.write_text(json.dumps(coco))
    assert_says(refused_file(path, data_folder, capfd), parts)


@pytest.mark.parametrize("name", RAW)
def test_files_that_are_no_annotations(name, data_folder, tmp_path, capfd):
    path = tmp_path / "raw.json"
    path.write_bytes(RAW[name][0])
    assert_says(refused_file(path, data_folder, capfd), RAW[name][1])


def test_a_file_beyond_reason_is_not_read(data_folder, tmp_path, capfd):
    path = tmp_path / "sparse.json"
    with open(path, "wb") as file:
        os.truncate(file.fileno(), MAX_BYTES + 1)  # a sparse file, which needs no disk space
    assert_says(refused_file(path, data_folder, capfd), [f"{MAX_BYTES + 1} bytes", "split the data set"])
    if os.path.exists("/proc/self/mem"):  # its first bytes cannot be read, even by root
        assert_says(refused_file("/proc/self/mem", data_folder, capfd), "cannot be read as JSON")
