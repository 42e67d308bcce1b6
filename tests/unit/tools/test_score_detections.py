"""tools/score_detections.py computes the same numbers as an evaluation with the same detections."""
import json

import pytest

from tools import score_detections

COCO = {"images": [{"id": 7, "file_name": "a.jpg", "height": 100, "width": 100},
                   {"id": 9, "file_name": "b.jpg", "height": 100, "width": 100}],
        "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 5, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0},
                        {"id": 2, "image_id": 9, "category_id": 2, "bbox": [0, 0, 50, 50], "area": 2500, "iscrowd": 0}]}


def entry(file, *rows):
    return {"file": file, "drawing": "", "height": 100, "width": 100, "detections": [
        {"bbox": box, "category": category, "label": 0, "score": 0.9} for box, category in rows]}


@pytest.fixture
def score(tmp_path, monkeypatch, run_tool):
    """A function of the entries that returns the numbers, or None after an error, and the printed text."""
    monkeypatch.chdir(tmp_path)

    def run(entries, coco=COCO):
        (tmp_path / "coco.json").write_text(json.dumps(coco))
        (tmp_path / "detections.json").write_text(entries if isinstance(entries, str) else json.dumps(entries))
        status, *printed = run_tool(score_detections, "coco.json", "detections.json", "--json", "out.json")
        return None if status else json.loads((tmp_path / "out.json").read_text()), "".join(printed)
    return run


def test_numbers_worked_by_hand(score):
    """A box of IoU 0.825 passes 7 of 10 thresholds, so one class has AP 0.7. The box of the second class is found exactly."""
    metrics, _ = score([entry("x/a.jpg", ([10, 10, 40, 33], "dog")), entry("y/b.jpg", ([0, 0, 50, 50], "cat"))])
    assert metrics["per_class"] == {"cat": pytest.approx(1), "dog": pytest.approx(0.7)}
    assert metrics["images"] == 2 and metrics["AP50"] == pytest.approx(1) and metrics["AP"] == pytest.approx(0.85)


def test_images_without_an_entry_do_not_count(score):
    metrics, printed = score([entry("a.jpg", ([10, 10, 40, 40], "dog"))])
    assert metrics["images"] == 1 and metrics["AP"] == pytest.approx(1)
    assert "1 of 2 images of coco.json are not in detections.json and are not scored" in printed


@pytest.mark.parametrize(("entries", "sentence"), [
    ([entry("c.jpg")], "error: c.jpg must be listed once, and its path must end with the file_name of exactly one image"),
    ([entry("a.jpg", ([0, 0, 1, 1], "cow"))], "a.jpg has a detection of the class 'cow', which coco.json does not have"),
    ("[", "detections.json is no detections.json of infer.py or deploy/detect.py"), ([3], "is no detections.json"),
    ({"a": 3}, "is no detections.json"), ([{"file": 3, "detections": []}], "is no detections.json")])
def test_refusals(score, entries, sentence):
    metrics, printed = score(entries)
    assert metrics is None and sentence in printed


def with_file_names(*names):
    return {**COCO, "images": [{**image, "file_name": name} for image, name in zip(COCO["images"], names)]}


DOG, CAT = ([10, 10, 40, 40], "dog"), ([0, 0, 50, 50], "cat")


@pytest.mark.parametrize(("names", "files"), [
    (("cam1/1.jpg", "cam2/1.jpg"), ("cam1/1.jpg", "/data/val/cam2/1.jpg")),
    (("cam1/1.jpg", "1.jpg"), ("val/cam1/1.jpg", "val/1.jpg")),  # the file_name that shares more folders
    (("./cam1/1.jpg", "val/2.jpg"), ("./cam1/1.jpg", "/data/val//2.jpg"))])
def test_images_of_one_name_in_several_folders(score, names, files):
    """Each image has one object, which is found exactly. All objects have different classes."""
    metrics, _ = score([entry(files[1], CAT), entry(files[0], DOG)], with_file_names(*names))
    assert metrics["images"] == 2 and metrics["per_class"] == {"cat": pytest.approx(1), "dog": pytest.approx(1)}


@pytest.mark.parametrize(("names", "files"), [
    (("cam1/1.jpg", "cam2/1.jpg"), ["1.jpg"]), (("cam1/1.jpg", "cam2/2.jpg"), ["cam2/1.jpg"]),
    (("1.jpg", "2.jpg"), ["cam1/1.jpg", "cam2/1.jpg"]), (("1.jpg", "1.jpg"), ["1.jpg"])])
def test_ambiguous_names_are_errors(score, names, files):
    """The last file is wrong: it matches no image, the image of another file, or two images."""
    metrics, printed = score([entry(file, DOG) for file in files], with_file_names(*names))
    assert metrics is None and f"error: {files[-1]} must be listed once, and its path must end with the file_name of" in printed
