"""tools/compare.py and src/report/comparison.py: requirements on two evaluations, and the data of the page."""
import json
import re
from pathlib import Path

import numpy as np
import pytest

from src.dataset.splits import with_classes
from src.evaluation.evaluate import write_results
from src.report.comparison import open_dataset, read_evaluation, score_again
from src.report.matched import match_boxes
from tests.helpers.reports import contents_of, evaluated
from tools import compare


@pytest.fixture
def folders(case, tmp_path):
    """Folders of two evaluations, the first with more noise; metrics.json contains the path of the data set."""
    for name, noise in (("a", 0.2), ("b", 0.05)):
        evaluation = evaluated(case.dataset, seed=len(name), noise=noise)
        evaluation.metrics.update(annotations=case.dataset.annotation_path, image_folder=case.dataset.image_dir)
        write_results(str(tmp_path / name), evaluation.metrics, evaluation.results)
    # The evaluations used these annotations, which differ from the file.
    Path(case.dataset.annotation_path).write_text(json.dumps(case.dataset.coco_json))
    return tmp_path / "a", tmp_path / "b", tmp_path / "page.html"


def edit(folder, change, name="metrics.json"):
    path = folder / name
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


def refused(run_tool, folders, *words):
    status, _, error = run_tool(compare, *folders[:2], "--output", folders[2], *words)
    assert status == 1 and not folders[2].exists()
    return error


def test_the_page_has_the_numbers_of_both(run_tool, folders):
    status, output, error = run_tool(compare, *folders[:2], "--output", folders[2])
    assert (status, error) == (0, "") and str(folders[2]) in output
    page = contents_of(folders[2])
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in folders[:2]]
    for detector, folder, expected in zip(page["detectors"], folders, metrics):
        assert detector["label"] == str(folder)
        assert detector["metrics"] == pytest.approx({key: expected[key] for key in detector["metrics"]}, abs=1e-12)
        assert {row["name"]: row["ap"] for row in detector["classes"][:-1]} == pytest.approx(expected["per_class"], abs=1e-12)
    assert metrics[1]["AP"] > metrics[0]["AP"] + 0.1
    assert len(page["gallery"]["images"]) == 30 and len(page["gallery"]["boxes"]) == 3


def test_an_evaluation_beside_itself(run_tool, folders):
    run_tool(compare, folders[0], folders[0], "--output", folders[2])
    page = contents_of(folders[2])
    assert page["detectors"][0] == page["detectors"][1] and page["gallery"]["boxes"][1] == page["gallery"]["boxes"][2]
    assert [image["image"] for image in page["gallery"]["images"]] == list(range(30))


def test_a_data_set_elsewhere(run_tool, folders, case):
    for folder in folders[:2]:
        edit(folder, lambda metrics: metrics.pop("annotations") and None)
    assert "does not say where its data set is; give --annotations FILE and --images FOLDER." in refused(run_tool, folders)
    words = "--annotations", case.dataset.annotation_path, "--images", case.dataset.image_dir
    assert run_tool(compare, *folders[:2], "--output", folders[2], *words)[0] == 0


def test_some_of_the_classes(run_tool, folders, case):
    dataset = with_classes(case.dataset, case.dataset.names[2:0:-1], may_lack=False)
    for folder in folders[:2]:
        evaluation = evaluated(dataset)
        evaluation.metrics.update(annotations=dataset.annotation_path, image_folder=dataset.image_dir)
        write_results(str(folder), evaluation.metrics, evaluation.results)
    assert run_tool(compare, *folders[:2], "--output", folders[2])[0] == 0
    assert contents_of(folders[2])["names"] == ["rectangle", "triangle"]


def test_other_classes(run_tool, folders):
    edit(folders[1], lambda metrics: metrics["per_class"].update(cat=metrics["per_class"].pop("circle")))
    assert "the evaluations have other classes: " in refused(run_tool, folders)


def test_other_images(run_tool, folders):
    edit(folders[1], lambda metrics: metrics.update(images=29, skipped_image_ids=[4]))
    assert "the evaluations have other images: " in refused(run_tool, folders)


def test_another_data_set(run_tool, folders, case):
    words = "--annotations", case.dataset.annotation_path, "--images", case.dataset.image_dir
    path = Path(case.dataset.annotation_path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "annotations": content["annotations"][5:]}))
    assert "the annotations have changed" in refused(run_tool, folders, *words)
    kept = {image["id"] for image in content["images"][:20]}
    path.write_text(json.dumps({**content, "images": content["images"][:20], "annotations": [
        row for row in content["annotations"] if row["image_id"] in kept]}))
    assert "is an evaluation of other images than those of" in refused(run_tool, folders, *words)


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("metrics.json", None, "cannot read .*metrics.json .No such file or directory.; give a folder that eval.py wrote"),
    ("metrics.json", "{", "metrics.json is no JSON file"),
    ("metrics.json", '{"AP": 1}', "metrics.json is not of an evaluation"),
    ("bbox_results.json", "[" * 100_000, "bbox_results.json is no JSON file"),
    ("bbox_results.json", '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3], "score": 1}]', "not in COCO's format"),
    ("bbox_results.json", '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, "4"], "score": 1}]', "not in COCO's format"),
    ("bbox_results.json", '[{"image_id": [1], "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]', "not in COCO's format"),
    ("bbox_results.json", '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]', "not in COCO's format"),
])
def test_folders_of_something_else(run_tool, folders, name, content, sentence):
    (folders[0] / name).unlink()
    if content is not None:
        (folders[0] / name).write_text(content)
    error = refused(run_tool, folders)
    assert re.search(sentence, error) and error.count("\n") == 1


def test_a_page_that_cannot_be_written(run_tool, folders):
    folders[2].mkdir()
    status, _, error = run_tool(compare, *folders[:2], "--output", folders[2])
    assert status == 1 and "it is a folder; give a file's path." in error


def test_the_images_that_changed_most_come_first(run_tool, folders):
    run_tool(compare, *folders[:2], "--output", folders[2])
    stored = [read_evaluation(str(folder)) for folder in folders[:2]]
    dataset = open_dataset(stored, "", "")
    first, other = (match_boxes(score_again(one, dataset)).costs(30) for one in stored)
    changes = np.abs(other - first)[[image["image"] for image in contents_of(folders[2])["gallery"]["images"]]]
    assert (np.diff(changes) <= 0).all() and changes[0] > 1
