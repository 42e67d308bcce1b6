"""Bad annotation files: the error in each file, and the decisive parts of the error message."""
import json
import os

import pytest

from src.dataset.annotation_file import MAX_BYTES
from src.dataset.annotations import load_coco
from tests.helpers.sentences import assert_says, refusal

ABSENT = object()
DEEP = json.loads("[" * 400 + "]" * 400)

# Path inside a good file, its new value, parts of the error message.
SPOILT = {
    "images are an object": ("images", {}, "no list 'images'"),
    "images are null": ("images", None, "no list 'images'"),
    "no categories": ("categories", ABSENT, "no list 'categories'"),
    "categories are empty": ("categories", [], "an empty list 'categories'"),
    "annotations are a number": ("annotations", 7, "no list 'annotations'"),
    "an image is a list": ("images.0", [1, 2], "number 0 of 'images' is not an object"),
    "an image is null": ("images.1", None, "number 1 of 'images' is not an object"),
    "a category is a text": ("categories.0", "cat", "number 0 of 'categories' is not an object"),
    "an annotation is a text": ("annotations.0", "box", "number 0 of 'annotations' is not an object"),
    "an image without id": ("images.0.id", ABSENT, "has the id None: an integer"),
    "an image with a fraction as id": ("images.0.id", 1.5, "has the id 1.5: an integer"),
    "an image with a list as id": ("images.0.id", [1], "has the id [1]: an integer"),
    "an image with true as id": ("images.0.id", True, "has the id True: an integer"),
    "an image with a huge id": ("images.0.id", 10**30, ["has the id 1000000", "at most 63 bits"]),
    "an image with a nested id": ("images.0.id", DEEP, ["has the id [[[[", "an integer"]),
    "two images of one id": ("images.1.id", 1, "number 1 of 'images' repeats the id 1"),
    "two categories of one id": ("categories.1.id", 3, "number 1 of 'categories' repeats the id 3"),
    "two annotations of one id": ("annotations.1.id", 1, "number 1 of 'annotations' repeats the id 1"),
    "an annotation with a text as id": ("annotations.0.id", "a7", "number 0 of 'annotations' has the id 'a7'"),
    "an annotation with an object as id": ("annotations.0.id", {}, "number 0 of 'annotations' has the id {}"),
    "an annotation of an unknown image": ("annotations.0.image_id", 99, ["number 0", "image_id 99", "not in the lists"]),
    "an annotation of no image": ("annotations.0.image_id", None, "image_id None"),
    "an annotation of an unknown category": ("annotations.0.category_id", 4, ["number 0", "category_id 4"]),
    "an annotation with an object as category": ("annotations.0.category_id", {"id": 3}, "category_id {'id': 3}"),
    "an annotation without bbox": ("annotations.0.bbox", ABSENT, "number 0 of 'annotations' has no 'bbox'"),
    "a bbox of five numbers": ("annotations.0.bbox", [1, 2, 3, 4, 5], "the bbox [1, 2, 3, 4, 5]: [x, y, width, height]"),
    "a bbox of an object": ("annotations.0.bbox", {"x": 1}, "the bbox {'x': 1}: [x, y"),
    "a bbox with true": ("annotations.0.bbox", [True, 1, 2, 3], "the bbox [True, 1, 2, 3]"),
    "a bbox with null": ("annotations.0.bbox", [None, 1, 2, 3], "the bbox [None, 1, 2, 3]"),
    "a bbox that is nested": ("annotations.0.bbox", [DEEP, 1, 2, 3], "the bbox [[[["),
    "a bbox that never ends": ("annotations.0.bbox", list(range(100_000)), "the bbox [0, 1, 2,"),
    "a bbox beyond float64": ("annotations.0.bbox", [10**400, 1, 2, 3], "a number too large for any image"),
    "a bbox beyond any image": ("annotations.1.bbox", [1, 1, 1e300, 1e300], ["number 1", "1e+300", "too large for any image"]),
    "a crowd by a text": ("annotations.0.iscrowd", "0", "the iscrowd '0': 0 or 1"),
    "a crowd by a list": ("annotations.0.iscrowd", [], "the iscrowd []: 0 or 1"),
    "a height of a text": ("images.0.height", "64", "has height '64' and width 64: positive integers"),
    "a height of a fraction": ("images.0.height", 64.5, "height 64.5"),
    "a negative width": ("images.0.width", -64, "width -64"),
    "a width beyond any image": ("images.0.width", 2**31, "width 2147483648: positive integers below 2147483648"),
    "no height": ("images.0.height", ABSENT, "height None"),
    "a file name of a number": ("images.0.file_name", 7, "the file_name 7: a text"),
    "an empty file name": ("images.0.file_name", "", "the file_name '': a text"),
    "a file name with a NUL": ("images.0.file_name", "a\0.jpg", ["the file_name 'a\\x00.jpg'", "must not contain"]),
    "a file name of two lines": ("images.0.file_name", "a.jpg\nINFO all is well", [r"a.jpg\nINFO", "must not contain line ends"]),
    "a file name of half a character": ("images.0.file_name", "\ud800.jpg", [r"\ud800.jpg", "must not contain"]),
    "a file name with an escape sequence": ("images.0.file_name", "\x1b[2J.jpg", [r"\x1b[2J", "must not contain"]),
    "a file name with the folder above": ("images.0.file_name", "../../etc/passwd", "leads out of the image folder"),
    "a file name with the folder above inside": ("images.0.file_name", "a/../../b.jpg", "leads out of the image folder"),
    "an absolute file name": ("images.0.file_name", "/etc/passwd", "leads out of the image folder"),
    "an endless file name": ("images.0.file_name", "/" + "x" * 100_000, ["leads out", "x..."]),
    "a category without name": ("categories.0.name", ABSENT, "(id 3) has the name None: a text"),
    "a category name of two lines": ("categories.0.name", "cat\n", [r"'cat\n'", "must not contain line ends"]),
    "a category name of a list": ("categories.0.name", ["cat"], "the name ['cat']: a text"),
}

# The bytes of a file, and a part of the error message.
RAW = {
    "empty": (b"", "not valid JSON: Expecting value"),
    "only white space": (b" \n\n", "not valid JSON"),
    "HTML": (b"<!doctype html><title>404</title>", "not valid JSON: Expecting value"),
    "cut off": (b'{"images": [{"id": 1, "file_na', "not valid JSON: Unterminated string"),
    "JSON lines": (b'{"images": []}\n{"images": []}\n', "not valid JSON: Extra data"),
    "single quotes": (b"{'images': []}", "not valid JSON"),
    "a comma too many": (b'{"images": [],}', "not valid JSON"),
    "Latin 1": ('{"images": "é"}'.encode("latin-1"), ["not valid JSON", "codec can't decode"]),
    "UTF-16": ('{"images": []}'.encode("utf-16"), "not valid JSON"),
    "a image": (b"\xff\xd8\xff\xe0" + bytes(100), "not valid JSON"),
    "NUL bytes": (bytes(1000), "not valid JSON"),
    "a control character in a text": (b'{"images": "a\x01"}', "not valid JSON: Invalid control character"),
    "lists in lists": (b"[" * 1_000_000, "nested too deeply"),
    "objects in objects": (b'{"images":' * 1_000_000, "nested too deeply"),
    "a number": (b"17", "no list 'images'"),
    "a text": (b'"COCO"', "no list 'images'"),
    "null": (b"null", "no list 'images'"),
    "detections": (b'[{"image_id": 1, "category_id": 3, "bbox": [1, 1, 2, 2], "score": 0.5}]', "no list 'images'"),
}


def spoil(content, place, value):
    """Set the value at a dotted path of nested lists and dicts."""
    *parents, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    for key in parents:
        content = content[key]
    if value is ABSENT:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_annotations(name, coco, data_folder, tmp_path, capfd):
    place, value, parts = SPOILT[name]
    spoil(coco, place, value)
    path = tmp_path / "spoilt.json"
    path.write_text(json.dumps(coco))
    sentence = refusal(lambda: load_coco(str(path), str(data_folder / "train2017")), capfd)
    assert_says(sentence, parts)
    assert str(path) in sentence and len(sentence) < 500


@pytest.mark.parametrize("name", RAW)
def test_files_that_are_no_annotations(name, data_folder, tmp_path, capfd):
    content, parts = RAW[name]
    path = tmp_path / "raw.json"
    path.write_bytes(content)
    sentence = refusal(lambda: load_coco(str(path), str(data_folder / "train2017")), capfd)
    assert_says(sentence, [str(path), *([parts] if isinstance(parts, str) else parts)])


def test_an_integer_of_too_many_digits(coco, data_folder, tmp_path, capfd):
    path = tmp_path / "digits.json"
    path.write_text(json.dumps(coco).replace('"width": 64', '"width": ' + "9" * 100_000, 1))
    sentence = refusal(lambda: load_coco(str(path), str(data_folder / "train2017")), capfd)
    # The interpreter's limit applies, if it has one.
    assert str(path) in sentence and ("4300 digits" in sentence or "positive integers" in sentence) and len(sentence) < 500


def test_a_file_beyond_reason_is_not_read(data_folder, tmp_path, capfd):
    path = tmp_path / "sparse.json"
    with open(path, "wb") as file:
        os.truncate(file.fileno(), MAX_BYTES + 1)  # a sparse file, which needs no disk space
    assert_says(refusal(lambda: load_coco(str(path), str(data_folder / "train2017")), capfd),
                [str(path), f"{MAX_BYTES + 1} bytes", "split the data set"])


def test_a_folder_and_a_file_that_cannot_be_read(data_folder, capfd):
    images = str(data_folder / "train2017")
    assert_says(refusal(lambda: load_coco(images, images), capfd), [images, "is not a file"])
    if os.path.exists("/proc/self/mem"):  # its first bytes cannot be read, even by root
        assert_says(refusal(lambda: load_coco("/proc/self/mem", images), capfd), ["/proc/self/mem cannot be read: "])
