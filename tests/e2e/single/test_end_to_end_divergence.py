"""Diverging runs stop and leave their last checkpoint unchanged."""
import os
import re
import shutil

import numpy as np

from src.dataset.shapes import CLASSES
from tests.helpers.run_files import checkpoint, contents, read_lines
from tests.helpers.tiny_networks import OVERFLOWING_SCALE, write_overflowing

FLAGS = ["--mix", "False", "--ms_mode", "1"]


def begin_after_one_epoch(folder, uninterrupted):
    """Put the checkpoint of the first epoch, six steps, into the folder of a run; returns its path."""
    good = checkpoint(folder, "epoch1_rank0")
    os.makedirs(os.path.dirname(good))
    return shutil.copy(checkpoint(uninterrupted, "epoch1_rank0"), good)


def test_a_rate_that_is_too_high_leaves_the_last_good_checkpoint(run, workspace, uninterrupted):
    """With this learning rate, the weights in epoch 2 become so large that variances of BatchNorm are infinite."""
    folder = workspace / "too_high"
    good = begin_after_one_epoch(folder, uninterrupted)
    message = run("train.py", folder, *FLAGS, "--resume_ckpt", "auto", "--lr_init", "5", status=1, clip_grads=False, epochs=4,
                  keep_checkpoint_max=2)
    assert message.splitlines()[-1].endswith(f"start again from {good} with a smaller lr_init."), message
    assert all(np.isfinite(array).all() for array in contents(good).values())
    output = run("train.py", folder, *FLAGS, "--resume_ckpt", good, epochs=2)
    assert " step 6/6 " in output and " skipped 0 " in output


def test_a_loss_that_is_not_finite_ends_the_run(run, workspace, uninterrupted):
    folder = workspace / "not_finite"
    path = begin_after_one_epoch(folder, uninterrupted)
    message = run("train.py", folder, *FLAGS, "--resume_ckpt", path, "--lr_init", "1000", status=1, clip_grads=False, epochs=40)
    [line] = [line for line in message.splitlines() if line.startswith("error: ")]
    found = re.search(r"the loss is (nan|inf|-inf) at step (\d+), with learning rate 1e\+03 and the images (.*), (.*);", line)
    assert found, line
    assert int(found[2]) > 6 and all(re.search(r"/train2017/0000(0[1-9]|1[0-3])\.jpg$", found[image]) for image in (3, 4))
    assert read_lines(folder)[-1]["global_step"] == int(found[2])
    before, after = contents(checkpoint(uninterrupted, "epoch1_rank0")), contents(path)
    assert all((after[name] == before[name]).all() for name in before)


def test_a_run_that_ends_in_skipped_steps_fails_and_changes_nothing(run, workspace):
    folder, path = workspace / "skipped", workspace / "skipped.ckpt"
    write_overflowing(path, len(CLASSES))
    message = run("train.py", folder, *OVERFLOWING_SCALE, "--resume_ckpt", path, status=1, epochs=1)
    assert message.splitlines()[-1] == (
        "error: training is done, but its last 6 steps were skipped, as the loss or the gradients were not finite; start again "
        f"from {path} with a smaller ms_loss_scaler_value or lr_init.")
    weights, skipped = contents(path), contents(checkpoint(folder, "epoch1_rank0"))
    assert all((skipped[name] == weights[name]).all() for name in weights)
    # A new run moves an existing checkpoint away when it saves its first one.
    run("train.py", folder, *FLAGS, epochs=1)
    for place in (folder / "checkpoint", folder / "checkpoint" / "superseded_1"):
        assert [path.name for path in place.glob("*.ckpt")] == ["FasterRCNN_det_resnet18_epoch1_rank0.ckpt"]


def test_gradients_that_always_overflow_end_the_run(run, workspace):
    folder, path = workspace / "overflowing", workspace / "overflowing.ckpt"
    write_overflowing(path, len(CLASSES))
    message = run("train.py", folder, *OVERFLOWING_SCALE, "--resume_ckpt", path, status=1, epochs=10)
    assert "21 steps in a row had gradients that are not finite, the last one at step 21, " in message
    assert read_lines(folder)[-1]["global_step"] == 21
