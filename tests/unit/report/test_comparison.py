"""tools/compare.py and src/report/comparison.py: requirements on two evaluations, and the data of the page."""
import json
import re
from pathlib import Path

import pytest

from src.dataset.splits import with_classes
from src.evaluation.evaluate import write_results
from tests.helpers.reports import contents_of, evaluated
from tools import compare


def write(folder, dataset, **noise):
    """Write an evaluation; metrics.json contains the path of the data set."""
    evaluation = evaluated(dataset, **noise)
    evaluation.metrics.update(annotations=dataset.annotation_path, image_folder=dataset.image_dir)
    write_results(str(folder), evaluation.metrics, evaluation.results)


@pytest.fixture
def folders(case, tmp_path):
    """Folders of two evaluations, the first with more noise, and the path of the page."""
    for name, noise in (("a", 0.2), ("b", 0.05)):
        write(tmp_path / name, case.dataset, seed=1, noise=noise)
    # The evaluations used these annotations, which differ from the file.
    Path(case.dataset.annotation_path).write_text(json.dumps(case.dataset.coco_json))
    return tmp_path / "a", tmp_path / "b", tmp_path / "page.html"


def edit(folder, change):
    path = folder / "metrics.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refused(run_tool, folders, *words):
    status, _, error = run_tool(compare, *folders[:2], "--output", folders[2], *words)
    assert status == 1 and not folders[2].is_file() and error.count("\n") == 1
    return error


def test_page_has_the_numbers_of_both(run_tool, folders):
    status, output, error = run_tool(compare, *folders[:2], "--output", folders[2])
    assert (status, error) == (0, "") and str(folders[2]) in output
    page = contents_of(folders[2])
    for detector, folder in zip(page["detectors"], folders):
        expected = json.loads((folder / "metrics.json").read_text())
        assert detector["label"] == str(folder) and detector["metrics"]["AP"] == pytest.approx(expected["AP"], abs=1e-12)
    assert len(page["gallery"]) == 30 and len(page["gallery"][0]["boxes"]) == 3
    # Without differences, images keep their order.
    run_tool(compare, folders[0], folders[0], "--output", folders[2])
    assert [image["image"] for image in contents_of(folders[2])["gallery"]] == list(range(30))
    folders[2].unlink()
    folders[2].mkdir()
    assert "it is a folder; give a file's path." in refused(run_tool, folders)


def test_data_set_that_was_moved_or_changed(run_tool, folders, case):
    for folder in folders[:2]:
        edit(folder, lambda metrics: metrics.pop("annotations"))
    assert "does not say where its data set is; pass --annotations FILE and --images FOLDER." in refused(run_tool, folders)
    words = "--annotations", case.dataset.annotation_path, "--images", case.dataset.image_dir
    assert run_tool(compare, *folders[:2], "--output", folders[2], *words)[0] == 0
    folders[2].unlink()
    path = Path(case.dataset.annotation_path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "annotations": content["annotations"][5:]}))
    assert "the annotations have changed" in refused(run_tool, folders, *words)
    kept = {image["id"] for image in content["images"][:20]}
    path.write_text(json.dumps({**content, "images": content["images"][:20], "annotations": [
        row for row in content["annotations"] if row["image_id"] in kept]}))
    assert "does not have the images of" in refused(run_tool, folders, *words)


def test_some_of_the_classes(run_tool, folders, case):
    for folder in folders[:2]:
        write(folder, with_classes(case.dataset, case.dataset.names[2:0:-1], may_lack=False))
    assert run_tool(compare, *folders[:2], "--output", folders[2])[0] == 0
    assert contents_of(folders[2])["names"] == ["rectangle", "triangle"]


@pytest.mark.parametrize(("change", "sentence"), [
    (lambda metrics: metrics["per_class"].update(cat=metrics["per_class"].pop("circle")), "have different classes: "),
    (lambda metrics: metrics.update(images=29, skipped_image_ids=[4]), "the evaluations have different images: "),
    (lambda metrics: metrics.update(skipped_image_ids=[4]), "the evaluations have different skipped images: ")])
def test_different_evaluations(run_tool, folders, change, sentence):
    edit(folders[1], change)
    assert sentence in refused(run_tool, folders)


@pytest.mark.parametrize(("name", "content", "sentence"), [
    ("metrics.json", None, "cannot read .*metrics.json .No such file or directory.; pass the folder of an evaluation"),
    ("metrics.json", '{"AP": 1}', "metrics.json that eval.py has not written"),
    ("bbox_results.json", "[" * 100_000, "cannot read .*bbox_results.json .it is no JSON file"),
    ("bbox_results.json", '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, "4"], "score": 1}]', "not in COCO's format"),
    ("bbox_results.json", '[{"image_id": [1], "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]', "not in COCO's format")])
def test_folders_without_an_evaluation(run_tool, folders, name, content, sentence):
    (folders[0] / name).unlink()
    if content is not None:
        (folders[0] / name).write_text(content)
    assert re.search(sentence, refused(run_tool, folders))


