"""An uninterrupted run of four epochs equals two epochs plus two more that are killed in the last epoch and resumed.

The first part of the second run stores its compiled graphs, and the later parts load them. The first run does not use these
graphs.
"""
import csv
import os

import numpy as np
import pytest

from tests.e2e.single.conftest import DAMAGED
from tests.helpers.run_files import assert_same_checkpoint, checkpoint, contents, read_lines
from tests.helpers.scripts import assert_all_end, wait_for

EPOCHS, STEPS_PER_EPOCH = 4, 6
LOSSES = ["rpn_cls_loss", "rpn_box_loss", "roi_cls_loss", "roi_box_loss"]
BUT_FOR_EVALUATION = {"best_ap", "best_epoch", "evaluated", "evals_since_best"}  # only one of the runs is evaluated


def test_two_epochs_and_two_make_the_same_weights_momenta_and_losses_as_one_run(workspace, run, start, straight):
    """The number of epochs and evaluations does not change the weights either: the run in three parts is not evaluated."""
    folder = workspace / "interrupted"
    run("train.py", folder, epochs=2)
    # The second part reads its images in worker processes. The checkpoint's seed replaces its flag --seed.
    program, log = start("train.py", folder, "--resume_ckpt", checkpoint(folder, "epoch2_rank0"), "--seed", "5",
                         "--num_workers", "2")
    wait_for("epoch 4/4 step 2/6", program, log)
    workers = program.children(recursive=True)
    program.kill()
    assert_all_end([program, *workers])
    assert "seed 1234 of" in log.read_text() and "is used instead of 5" in log.read_text()
    assert not os.path.exists(checkpoint(folder, "epoch4_rank0"))
    before, lines = read_lines(folder), read_lines(straight[0])
    assert "resuming after epoch 3" in run("train.py", folder, "--resume_ckpt", checkpoint(folder, "epoch3_rank0"))
    for epoch in range(1, EPOCHS + 1):
        assert_same_checkpoint(checkpoint(folder, f"epoch{epoch}_rank0"), checkpoint(straight[0], f"epoch{epoch}_rank0"),
                               BUT_FOR_EVALUATION)
    assert len(before) > 3 * STEPS_PER_EPOCH and before == lines[:len(before)] and read_lines(folder) == lines
    log = (folder / "train.log").read_text()
    assert log.count(" epoch 1/2 step 1/6 ") == log.count(" epoch 4/4 step 6/6 ") == log.count("setting epochs: 2 -> 4") == 1


def test_a_second_training_from_its_configuration_leaves_the_first_one_complete(workspace, run, straight):
    """The second training writes the same files. Its first epoch is the same."""
    folder = workspace / "again"
    output = run("train.py", folder, "--run_eval", "True", epochs=1)
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "is moved to" not in output and (folder / "train.log").read_text() == output
    again = run("train.py", folder, "--config", folder / "config.yml")
    [earlier] = (folder / "earlier").iterdir()
    assert f"the earlier run in {folder} is moved to {earlier}" in again and (folder / "train.log").read_text() == again
    after = {path.relative_to(earlier): path.read_bytes() for path in earlier.rglob("*") if path.is_file()}
    assert after == {path: content for path, content in before.items() if path.name != ".run"}
    now = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and earlier not in path.parents}
    assert now == before.keys()
    for where in (folder, earlier):
        assert_same_checkpoint(checkpoint(where, "epoch1_rank0"), checkpoint(straight[0], "epoch1_rank0"))


def test_log_metrics_and_checkpoints(straight, data_folder):
    """The log names an unreadable training image once, and counts it."""
    folder, output = straight
    assert output.count(f"{data_folder / 'train2017' / DAMAGED} the file is truncated") == output.count(DAMAGED) == 1
    assert output.count("1 of 13 training images could not be read and were skipped") == 1
    lines = read_lines(folder)
    assert [line["global_step"] for line in lines] == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1))
    for line in lines:
        assert np.isfinite(line["loss"]) and line["loss"] == pytest.approx(sum(line[name] for name in LOSSES), rel=1e-6)
        assert line["skipped_steps"] == 0
    assert {str(path) for path in (folder / "checkpoint").iterdir()} == {
        checkpoint(folder, suffix) for suffix in ("best", *(f"epoch{epoch}_rank0" for epoch in range(1, EPOCHS + 1)))}


def test_a_few_steps_are_profiled_and_the_weights_are_the_same(workspace, run, uninterrupted):
    folder = workspace / "profiled"
    output = run("train.py", folder, "--mix", "False", "--run_profilor", "True", epochs=2)
    assert f"steps 3 to 7 of this run are profiled in {folder / 'profiler'}" in output
    [table] = (folder / "profiler").glob("*/FRAMEWORK/cpu_op_type_info_0.csv")
    with table.open() as file:
        updates = {row["op_type"]: int(row["type_occurrences"]) for row in csv.DictReader(file)}["ApplyMomentum"]
    # One per step and weight.
    assert updates == 5 * sum(name.startswith("moments.") for name in contents(checkpoint(folder, "epoch2_rank0")))
    assert_same_checkpoint(checkpoint(folder, "epoch2_rank0"), checkpoint(uninterrupted, "epoch2_rank0"))
