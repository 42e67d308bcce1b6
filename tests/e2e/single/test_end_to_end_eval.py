"""eval.py compared with the evaluation at the end of training; detections on unreadable images; no detections."""
import os
import shutil

import numpy as np
import pytest

from tests.helpers.run_files import checkpoint, contents, read_json, read_lines

NUMBERS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
CLASSES = ["circle", "rectangle", "triangle", "star"]
FILES = ("metrics.json", "bbox_results.json")
EPOCHS = [f"epoch{epoch}_rank0" for epoch in range(1, 5)]


@pytest.fixture(scope="module")
def trained(straight):
    """metrics.json and bbox_results.json of the last evaluation during training."""
    return [read_json(straight[0], "eval", name) for name in FILES]


@pytest.fixture(scope="module")
def scored_folder(workspace, run, straight):
    """The results folder of each checkpoint in the folder of `straight`."""
    run("eval.py", workspace / "scored_folder", "--ckpt_path", straight[0] / "checkpoint")
    folder = workspace / "scored_folder" / "eval"
    assert sorted(os.listdir(folder)) == [f"FasterRCNN_det_resnet18_{suffix}" for suffix in ("best", *EPOCHS)]
    return {suffix: folder / f"FasterRCNN_det_resnet18_{suffix}" for suffix in ("best", *EPOCHS)}


def test_result_files(trained, data_folder):
    metrics, rows = trained
    assert set(metrics) == {*NUMBERS, "images", "per_class", "skipped_images", "skipped_image_ids", "annotations", "image_folder"}
    assert metrics["annotations"] == str(data_folder / "annotations" / "instances_val2017.json")
    assert metrics["image_folder"] == str(data_folder / "val2017")
    assert metrics["images"] == 6 and metrics["skipped_images"] == 0 and list(metrics["per_class"]) == CLASSES
    truth = read_json(data_folder, "annotations", "instances_val2017.json")
    assert {row["category_id"] for row in rows} <= {category["id"] for category in truth["categories"]}
    assert rows and {row["image_id"] for row in rows} <= {image["id"] for image in truth["images"]}
    for row in rows:
        x, y, width, height = row["bbox"]
        assert min(x, y) >= 0 and min(width, height) > 0 and max(x + width, y + height) <= 64.001
        assert 0.01 < row["score"] <= 1


def test_a_folder_of_checkpoints_gives_the_numbers_of_training(straight, scored_folder, trained):
    """The best checkpoint is of the first epoch with the highest AP, and each checkpoint has the best AP so far."""
    metrics, rows = (read_json(scored_folder["epoch4_rank0"], name) for name in FILES)
    assert metrics.pop("errors")["ground_truth"]["found"] > 0
    assert metrics == {**trained[0], "checkpoint": checkpoint(straight[0], "epoch4_rank0")} and rows == trained[1]
    ap = [read_json(scored_folder[suffix], "metrics.json")["AP"] for suffix in EPOCHS]
    assert read_json(scored_folder["best"], FILES[1]) == read_json(scored_folder[EPOCHS[int(np.argmax(ap))]], FILES[1])
    stored = [contents(checkpoint(straight[0], suffix))["best_ap"] for suffix in EPOCHS]
    assert stored == pytest.approx(np.maximum.accumulate(ap), rel=1e-6)


def test_reports_in_a_browser_have_the_numbers_of_the_files(browser, straight, scored_folder, trained):
    """The training report shows the last evaluation, and the report of eval.py the same numbers."""
    from tests.helpers.browser import Page
    folder = straight[0]
    for path in (folder / "eval", scored_folder["epoch4_rank0"]):
        page = Page(browser, path / "report.html")
        shown = page("[...document.querySelectorAll('#numbers dd')].map((node) => [node.dataset.key, +node.dataset.value])")
        assert dict(shown) == {key: trained[0][key] for key in NUMBERS}
        assert page.texts("#class-table tbody td:first-child") == CLASSES
        assert page("gallery.images.filter((image) => image.jpeg).length") == 6 and page.logs()[1] == []
    page = Page(browser, folder / "report.html")
    assert page.find("#state").text == "finished" and page("[progress.value, progress.max]") == [24, 24]
    assert page("data.curves.loss.at(-1)") == pytest.approx(read_lines(folder)[-1]["loss"], rel=1e-5)
    page.click("#about a")
    assert page("document.title") == f"Evaluation of {os.path.basename(folder)}" and page.logs()[1] == []


def test_batches_that_do_not_divide_the_images_and_pynative_mode(workspace, run, straight):
    """Batches of 4 in graph mode and batches of 3 in PyNative mode, in fp32, differ only by rounding."""
    flags = "--checkpoint_path", checkpoint(straight[0], "epoch4_rank0"), "--mix", "False"
    output = run("eval.py", workspace / "graph", *flags, "--batch_size", "4")
    assert output.count("Average Precision") == output.count("Average Recall") == 6
    run("eval.py", workspace / "pynative", *flags, "--batch_size", "3", "--ms_mode", "1")
    rows, others = (np.array([[row["image_id"], row["category_id"], row["score"], *row["bbox"]] for row in
                              read_json(workspace, mode, "eval", "bbox_results.json")]) for mode in ("graph", "pynative"))
    assert len(rows) == len(others) > 0 and len(set(rows[:, 0])) == 6
    # The order may differ if scores are nearly equal, so each detection is compared with the closest one in the second file.
    distances = np.abs((rows[:, None] - others) / [1, 1, 1e-3, 0.01, 0.01, 0.01, 0.01]).max(axis=2)
    assert distances.min(axis=0).max() < 1 and distances.min(axis=1).max() < 1


def test_unreadable_images_end_the_evaluation_or_are_skipped_and_no_detection_gives_zeros(workspace, run, straight, data_folder):
    folder = shutil.copytree(data_folder / "val2017", workspace / "damaged")
    image = folder / "000002.jpg"
    image.write_bytes(image.read_bytes()[:300])
    flags, settings = ["--checkpoint_path", checkpoint(straight[0], "epoch1_rank0")], {"data__val_img_dir": folder}
    error = run("eval.py", workspace / "refused", *flags, status=1, **settings)
    assert error == (f"error: Image {image}: the file is truncated; fix it, or leave such images out of the "
                     "evaluation with --skip_bad_images True.\n")
    assert not (workspace / "refused" / "eval" / "metrics.json").exists()

    output = run("eval.py", workspace / "skipped", *flags, "--skip_bad_images", "True", "--ms_mode", "1", **settings,
                 infer__conf_threshold=0.999)
    assert output.count(str(image)) == 1 and "1 of 6 images could not be read and are not scored" in output
    metrics, rows = (read_json(workspace, "skipped", "eval", name) for name in FILES)
    assert rows == [] and metrics["images"] == 5 and metrics["skipped_images"] == 1
    # -1 if there is no object: no box in images of 64 x 64 pixels is large.
    assert {metrics[key] for key in NUMBERS} == {0, -1} and set(metrics["per_class"].values()) == {0}
    assert metrics["AP"] == metrics["AP50"] == metrics["AR100"] == 0 and metrics["APl"] == -1
