"""tools/compare.py and src/report/comparison.py: requirements on two evaluations, and the data of the page."""
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from src.config import Config, with_settings
from src.dataset.annotations import load_coco
from src.dataset.shapes import ensure_shapes
from src.dataset.splits import open_validation_set, with_classes
from src.evaluation.coco import KEYS
from src.evaluation.evaluate import write_results
from src.report.comparison import read_evaluation, uncertainty
from src.run.distributed import SingleProcess
from src.run.optional import evaluation_writer
from tests.helpers.coco_cases import plain_pycocotools
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
    """Classes are matched by name, although order and category ids of the files differ; classes that one lacks are left out."""
    content = json.loads(Path(case.dataset.annotation_path).read_text())
    for row in content["annotations"]:
        row["category_id"] = 100 - row["category_id"]
    for row in content["categories"]:
        row["id"] = 100 - row["id"]
    other = Path(case.dataset.annotation_path).with_name("other.json")
    other.write_text(json.dumps(content))
    same = load_coco(str(other), case.dataset.image_dir)
    write(folders[0], with_classes(same, ["triangle", "rectangle", "fish"], may_lack=True))
    write(folders[1], with_classes(case.dataset, ["circle", "rectangle", "triangle"], may_lack=False))
    aps = [json.loads((folder / "metrics.json").read_text())["per_class"] for folder in folders[:2]]
    status, output, _ = run_tool(compare, *folders[:2], "--output", folders[2])
    assert status == 0 and f"{folders[0]}: classes that only this evaluation has are left out: fish" in output
    assert "left out: circle" in output
    page = contents_of(folders[2])
    assert page["names"] == ["rectangle", "triangle"]
    for detector, own in zip(page["detectors"], aps):
        assert [row["ap"] for row in detector["classes"][:2]] == pytest.approx([own["rectangle"], own["triangle"]], abs=1e-12)
    content["annotations"] = content["annotations"][5:]
    other.write_text(json.dumps(content))
    folders[2].unlink()
    words = "--annotations", other, "--images", case.dataset.image_dir
    assert "in its metrics.json: the annotations have changed" in refused(run_tool, folders, *words)


def test_run_folders(run_tool, folders):
    """A run's newest evaluation is compared, and the settings that differ and the curves of both runs are shown."""
    runs = [folders[0].parent / name for name in ("first", "second")]
    transforms = [{"RandomFlip": {"prob": 0.5}}, {"Resize": {}}]
    for run, folder, epochs, prob in zip(runs, folders, (2, 3), (0.5, 0.25)):
        place = run / "eval" / "best" / "val"
        place.parent.mkdir(parents=True)
        folder.rename(place)
        transforms[0]["RandomFlip"]["prob"] = prob
        settings = {"epochs": epochs, "seed": 1, "lr": {"milestones": [1, epochs]}, "data": {"item_transforms": transforms}}
        (run / "config.yml").write_text(f"# versions\n{yaml.safe_dump(settings, sort_keys=False)}")
        for name, lines in (("metrics.jsonl", [{"epoch": 1, "step": 5, "global_step": 5, "loss": 1.5}]),
                            ("evaluations.jsonl", [{"epoch": 1, "global_step": 5, "AP": prob}])):
            (run / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.copytree(runs[0] / "eval/best", runs[0] / "eval/older")
    os.utime(runs[0] / "eval/older/val/metrics.json", (0, 0))
    status, output, error = run_tool(compare, *runs, "--output", folders[2])
    assert (status, error) == (0, "") and f"of 2 evaluations, {runs[0]}/eval/best/val is the newest" in output
    page = contents_of(folders[2])
    assert page["settings"] == [["epochs", "2", "3"], ["lr.milestones", "[1, 2]", "[1, 3]"],
                                ["data.RandomFlip.prob", "0.5", "0.25"]]
    assert [[run["curves"]["loss"], run["evaluations"]["AP"]] for run in page["runs"]] == [[[1.5], [0.5]], [[1.5], [0.25]]]
    # The run of an evaluation is that of its checkpoint, wherever eval.py has written the results.
    path = runs[0] / "eval/best/val/metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "checkpoint": str(runs[1] / "checkpoint" / "best.ckpt")}))
    assert read_evaluation(str(path.parent)).run == str(runs[1])
    shutil.copytree(runs[0], runs[0] / "earlier" / "20300101_000000", ignore=shutil.ignore_patterns("earlier"))
    moved = runs[0] / "earlier" / "20300101_000000"
    assert read_evaluation(str(moved / "eval/best/val")).run == str(moved)
    shutil.rmtree(runs[0] / "earlier")
    (runs[1] / "config.yml").unlink()
    # The folder of an evaluation belongs to its run.
    status, output, _ = run_tool(compare, runs[0], runs[1] / "eval/best/val", "--output", folders[2])
    assert status == 0 and f"{runs[1]}/config.yml does not exist, so settings are not compared" in output
    page = contents_of(folders[2])
    assert page["settings"] is None and page["runs"][1]["curves"]["loss"] == [1.5]
    folders[2].unlink()
    for text in ("a: [", "- 1", "item_transforms: 3"):
        (runs[1] / "config.yml").write_text(text)
        assert "config.yml (it is no YAML file); pass the folder of" in refused(run_tool, (*runs, folders[2]))


def test_differences_that_chance_explains(case):
    """Detectors that differ only by random errors are mostly unclear; a detector with half the errors is clearly better."""
    ap = [[evaluated(case.dataset, seed, noise) for seed in range(4)] for noise in (0.15, 0.05)]
    clear = [[abs(b.metrics["AP"] - a.metrics["AP"]) > uncertainty([a, b], 30)[0] for a in first for b in other if a is not b]
             for first, other in ((ap[0], ap[0]), (ap[0], ap[1]))]
    assert sum(clear[0]) <= 2 and all(clear[1])
    one_image = evaluated(case.dataset, skipped=[record.image_id for record in case.dataset.records[1:]])
    assert np.isnan(uncertainty([one_image, one_image], 1)).all()


def test_several_annotation_files(run_tool, tmp_path):
    """Ids repeat between the files. The numbers are equal to pycocotools on a file that is combined by hand."""
    ensure_shapes(str(tmp_path), train_images=12, val_images=9, height=96, width=128, seed=3)
    folders = ["train2017", "val2017"]
    cfg = with_settings(Config(), {"data.dataset_dir": str(tmp_path), "data.val_img_dir": folders,
                                   "data.val_anno_path": [f"annotations/instances_{name}.json" for name in folders]})
    dataset = open_validation_set(cfg, SingleProcess())
    evaluation = evaluated(dataset)
    evaluation.metrics.update(annotations=os.path.abspath(dataset.annotation_path), image_folder=dataset.image_dir)
    evaluation_writer(cfg, dataset)(str(tmp_path / "eval"), evaluation, "detector")
    by_hand = {"images": [], "annotations": [], "info": {}}
    for name, offset in zip(folders, (1000, 2000)):
        part = json.loads((tmp_path / f"annotations/instances_{name}.json").read_text())
        by_hand["images"] += [{**row, "id": row["id"] + offset, "path": f"{name}/{row['file_name']}"} for row in part["images"]]
        by_hand["annotations"] += [{**row, "id": row["id"] + offset, "image_id": row["image_id"] + offset}
                                   for row in part["annotations"]]
        by_hand["categories"] = part["categories"]
    ids = {str(tmp_path / row["path"]): row["id"] for row in by_hand["images"]}
    ids = {record.image_id: ids[record.path] for record in dataset.records}
    results = json.loads((tmp_path / "eval/bbox_results.json").read_text())
    wanted = plain_pycocotools(by_hand, [{**row, "image_id": ids[row["image_id"]]} for row in results]).stats
    written = json.loads((tmp_path / "eval/annotations.json").read_text())
    for numbers in ([evaluation.metrics[key] for key in KEYS], plain_pycocotools(written, results).stats):
        assert numbers == pytest.approx(wanted, abs=1e-12)
    status, output, error = run_tool(compare, tmp_path / "eval", tmp_path / "eval", "--output", tmp_path / "page.html")
    assert (status, error) == (0, "") and f"AP {wanted[0]:.4f} and {wanted[0]:.4f}, difference" in output


@pytest.mark.parametrize(("change", "sentence"), [
    (lambda metrics: metrics.update(per_class={"cat": 0.5}), "have no class in common, so they cannot be compared."),
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


