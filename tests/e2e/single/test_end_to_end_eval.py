"""eval.py compared with the evaluation at the end of training; detections on unreadable images; no detections."""
import shutil

import numpy as np
import pytest

from tests.helpers.run_files import checkpoint, contents, read_json, results

NUMBERS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
CLASSES = ["circle", "rectangle", "triangle", "star"]
FILES = ("metrics.json", "bbox_results.json")
EPOCHS = [f"epoch{epoch}_rank0" for epoch in range(1, 5)]


def test_a_folder_of_checkpoints_gives_the_numbers_of_training(workspace, run, straight):
    """The best checkpoint is of the first epoch with the highest AP, and each checkpoint has the best AP so far."""
    run("eval.py", workspace / "scored_folder", "--ckpt_path", straight[0] / "checkpoint")
    place = workspace / "scored_folder" / "eval"
    scored = {suffix: place / f"FasterRCNN_det_resnet18_{suffix}" / "instances_val2017" for suffix in ("best", *EPOCHS)}
    assert sorted(place.glob("*/*")) == sorted(scored.values())
    metrics, rows = (read_json(scored["epoch4_rank0"], name) for name in FILES)
    expected, expected_rows = (read_json(straight[0], "eval", name) for name in FILES)
    assert metrics.pop("errors")["ground_truth"]["found"] > 0
    assert set(metrics) == {*NUMBERS, "images", "per_class", "skipped_images", "skipped_image_ids", "annotations", "image_folder",
                            "checkpoint"}
    assert metrics["images"] == 6 and metrics["skipped_images"] == 0 and list(metrics["per_class"]) == CLASSES
    assert metrics == {**expected, "checkpoint": checkpoint(straight[0], "epoch4_rank0")} and rows == expected_rows != []
    for folder in (straight[0], straight[0] / "eval", scored["epoch4_rank0"]):
        assert "</html>" in (folder / "report.html").read_text()  # tests/integration/report reads the pages in a browser
    ap = [read_json(scored[suffix], "metrics.json")["AP"] for suffix in EPOCHS]
    assert read_json(scored["best"], FILES[1]) == read_json(scored[EPOCHS[int(np.argmax(ap))]], FILES[1])
    stored = [contents(checkpoint(straight[0], suffix))["best_ap"] for suffix in EPOCHS]
    assert stored == pytest.approx(np.maximum.accumulate(ap), rel=1e-6)


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
    metrics, rows = (read_json(results(workspace / "skipped"), name) for name in FILES)
    assert rows == [] and metrics["images"] == 5 and metrics["skipped_images"] == 1
    # -1 if there is no object: no box in images of 64 x 64 pixels is large.
    assert {metrics[key] for key in NUMBERS} == {0, -1} and set(metrics["per_class"].values()) == {0}
    assert metrics["AP"] == metrics["AP50"] == metrics["AR100"] == 0 and metrics["APl"] == -1
