"""Checkpoints of the older MindSpore implementation in the scripts: fine-tuning with other classes, and evaluation."""
import numpy as np

from tests.helpers.older_implementation.drawn_checkpoint import drawn_weights, older_shapes, write
from tests.helpers.paths import TINY_DETECTOR
from tests.helpers.run_files import checkpoint, read_json, read_lines
from tests.helpers.scripts import run_script

EPOCHS = 6


def test_fine_tuning_with_three_classes_from_eighty(workspace, run, three_classes):
    path = write(workspace / "older.ckpt", drawn_weights(older_shapes("resnet18", 80, channels=32, hidden=64)))
    folder = workspace / "from_older"
    output = run("train.py", folder, "--resume_ckpt", path, "--mix", "False", data__train_anno_path=three_classes, epochs=EPOCHS)
    assert output.count("is a checkpoint of the older MindSpore implementation: its 130 weights get this project's names") == 1
    [named] = [line for line in output.splitlines() if "left at their initial values" in line]
    assert sorted(named.rsplit(": ", 1)[1].split(", ")) == ["box_head.classes.bias", "box_head.classes.weight",
                                                            "box_head.deltas.bias", "box_head.deltas.weight"]
    assert f"training starts at step 0 from the weights of {path}" in output
    losses = [line["loss"] for line in read_lines(folder) if "loss" in line]
    steps = len(losses) // EPOCHS
    assert steps == 6 and np.isfinite(losses).all()
    assert np.mean(losses[-steps:]) < 0.7 * np.mean(losses[:steps])


def test_a_trained_detector_scores_the_same_under_the_older_names(workspace, run, straight):
    path = workspace / "as_older.ckpt"
    done = run_script("tools/export_mindspore_models.py", checkpoint(straight[0], "epoch4_rank0"), path,
                      "--config", TINY_DETECTOR, timeout=300)
    assert done.returncode == 0, done.stderr
    output = run("eval.py", workspace / "as_older", "--checkpoint_path", path)
    assert output.count("is a checkpoint of the older MindSpore implementation") == 1
    for name in ("metrics.json", "bbox_results.json"):
        expected, found = (read_json(folder, "eval", name) for folder in (straight[0], workspace / "as_older"))
        assert found if name == "bbox_results.json" else found.pop("checkpoint") == str(path) and found.pop("errors")
        assert found == expected
