"""eval.py compared with the evaluation at the end of training; detections on unreadable images; no detections."""
import json
import os
import shutil

import numpy as np
import pytest

from tests.helpers.run_files import checkpoint, contents, read_json

NUMBERS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
CLASSES = ["circle", "rectangle", "triangle", "star"]
SUFFIXES = ["best", *(f"epoch{epoch}_rank0" for epoch in range(1, 5))]


@pytest.fixture(scope="module")
def trained(straight):
    """metrics.json and bbox_results.json of the last evaluation during training."""
    return [read_json(straight[0], "eval", name) for name in ("metrics.json", "bbox_results.json")]


@pytest.fixture(scope="module")
def scored_folder(workspace, run, straight):
    """metrics.json and bbox_results.json for each checkpoint of a folder."""
    save_dir = workspace / "scored_folder"
    run("eval.py", save_dir, "--ckpt_path", straight[0] / "checkpoint")
    names = sorted(os.listdir(save_dir / "eval"))
    assert names == [f"FasterRCNN_det_resnet18_{suffix}" for suffix in SUFFIXES]
    return {suffix: [read_json(save_dir, "eval", name, file) for file in ("metrics.json", "bbox_results.json")]
            for suffix, name in zip(SUFFIXES, names)}


def detections(rows):
    """Return rows of COCO's result format as an array (n, 7): image id, category id, score, x, y, width, height."""
    return np.array([[row["image_id"], row["category_id"], row["score"], *row["bbox"]] for row in rows])


def test_result_files(trained, data_folder):
    metrics, rows = trained
    assert set(metrics) == {*NUMBERS, "images", "per_class", "skipped_images", "skipped_image_ids", "annotations", "image_folder"}
    assert metrics["annotations"] == str(data_folder / "annotations" / "instances_val2017.json")
    assert metrics["image_folder"] == str(data_folder / "val2017")
    assert metrics["images"] == 6 and metrics["skipped_images"] == 0 and list(metrics["per_class"]) == CLASSES
    truth = read_json(data_folder, "annotations", "instances_val2017.json")
    assert rows and {row["category_id"] for row in rows} <= {category["id"] for category in truth["categories"]}
    assert {row["image_id"] for row in rows} <= {image["id"] for image in truth["images"]}
    for row in rows:
        x, y, width, height = row["bbox"]
        assert min(x, y) >= 0 and min(width, height) > 0 and max(x + width, y + height) <= 64.001
        assert 0.01 < row["score"] <= 1


def test_a_folder_of_checkpoints_gives_the_numbers_of_training(straight, scored_folder, trained):
    metrics, rows = scored_folder["epoch4_rank0"]
    assert metrics.pop("errors")["ground_truth"]["found"] > 0
    assert metrics == {**trained[0], "checkpoint": checkpoint(straight[0], "epoch4_rank0")}
    assert rows == trained[1]


def test_reports_in_a_browser_have_the_numbers_of_the_files(browser, straight, scored_folder, workspace, trained):
    """The training report shows the last evaluation, and the report of eval.py the same numbers."""
    from tests.helpers.browser import Page
    folder = straight[0]
    for path in (folder / "eval", workspace / "scored_folder" / "eval" / "FasterRCNN_det_resnet18_epoch4_rank0"):
        page = Page(browser, path / "report.html")
        shown = page("[...document.querySelectorAll('#numbers dd')].map((node) => [node.dataset.key, +node.dataset.value])")
        assert dict(shown) == {key: trained[0][key] for key in NUMBERS}
        assert page.texts("#class-table tbody td:first-child") == CLASSES
        assert page("gallery.images.filter((image) => image.jpeg).length") == 6 and page.logs()[1] == []
    assert page("detector.threshold") == read_json(path, "metrics.json")["errors"]["score_threshold"]
    page = Page(browser, folder / "report.html")
    assert page.find("#state").text == "finished" and page("[progress.value, progress.max]") == [24, 24]
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert page("data.curves.loss.at(-1)") == pytest.approx(last["loss"], rel=1e-5)
    page.click("#about a")
    assert page("document.title") == f"Evaluation of {os.path.basename(folder)}" and page.logs()[1] == []


def test_best_is_the_first_epoch_with_the_highest_ap(scored_folder):
    ap = {suffix: scored_folder[suffix][0]["AP"] for suffix in SUFFIXES[1:]}
    best = max(ap, key=ap.get)
    assert scored_folder["best"][1] == scored_folder[best][1]


def test_checkpoints_know_the_best_ap_so_far(straight, scored_folder):
    """A resumed run must not treat a worse AP as the best."""
    best = -1.0
    for suffix in SUFFIXES[1:]:
        best = max(best, scored_folder[suffix][0]["AP"])
        assert contents(checkpoint(straight[0], suffix))["best_ap"] == pytest.approx(best, rel=1e-6)


def test_batches_that_do_not_divide_the_images_and_pynative_mode(workspace, run, straight):
    """Batches of 4 in graph mode and batches of 3 in PyNative mode, in fp32, differ only by rounding."""
    path = checkpoint(straight[0], "epoch4_rank0")
    flags = "--checkpoint_path", path, "--mix", "False"
    output = run("eval.py", workspace / "graph", *flags, "--batch_size", "4")
    assert output.count("Average Precision") == output.count("Average Recall") == 6
    run("eval.py", workspace / "pynative", *flags, "--batch_size", "3", "--ms_mode", "1")
    assert [read_json(workspace, mode, "eval", "metrics.json")["images"] for mode in ("graph", "pynative")] == [6, 6]
    rows, others = (detections(read_json(workspace, mode, "eval", "bbox_results.json"))
                    for mode in ("graph", "pynative"))
    assert len(rows) == len(others) > 0
    # The order may differ if scores are nearly equal, so each detection is compared with the closest one in the second file.
    distances = np.abs((rows[:, None] - others) / [1, 1, 1e-3, 0.01, 0.01, 0.01, 0.01]).max(axis=2)
    assert distances.min(axis=0).max() < 1 and distances.min(axis=1).max() < 1


@pytest.fixture(scope="module")
def damaged(workspace, data_folder):
    """A copy of the validation images with one damaged image; returns (folder, path of the damaged image)."""
    folder = shutil.copytree(data_folder / "val2017", workspace / "damaged")
    image = folder / "000002.jpg"
    image.write_bytes(image.read_bytes()[:300])
    return folder, image


def test_an_unreadable_image_ends_the_evaluation(workspace, run, straight, damaged):
    folder, image = damaged
    path = checkpoint(straight[0], "epoch1_rank0")
    error = run("eval.py", workspace / "refused", "--checkpoint_path", path, status=1, data__val_img_dir=folder)
    assert error == (f"error: Image {image}: the file is truncated; fix it, or leave such images out of the "
                     "evaluation with --skip_bad_images True.\n")
    assert not (workspace / "refused" / "eval" / "metrics.json").exists()


def test_unreadable_images_may_be_skipped_and_no_detection_gives_zeros(workspace, run, straight, damaged):
    folder, image = damaged
    output = run("eval.py", workspace / "skipped", "--checkpoint_path", checkpoint(straight[0], "epoch1_rank0"),
                 "--skip_bad_images", "True", "--ms_mode", "1", data__val_img_dir=folder, infer__conf_threshold=0.999)
    assert output.count(str(image)) == 1 and "1 of 6 images could not be read and are not scored" in output
    assert json.loads((workspace / "skipped" / "eval" / "bbox_results.json").read_text()) == []
    metrics = read_json(workspace, "skipped", "eval", "metrics.json")
    assert metrics["images"] == 5 and metrics["skipped_images"] == 1
    # -1 if there is no object: no box in images of 64 x 64 pixels is large.
    assert {metrics[key] for key in NUMBERS} == {0, -1}
    assert metrics["AP"] == metrics["AP50"] == metrics["AR100"] == 0 and metrics["APl"] == -1
    assert set(metrics["per_class"].values()) == {0}
