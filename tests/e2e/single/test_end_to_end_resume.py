"""An uninterrupted run of four epochs equals two epochs plus two more that are killed in the last epoch and resumed.

The first part of the second run stores its compiled graphs, and the later parts load them. The first run does not use these
graphs.
"""
import csv
import json

import numpy as np
import pytest

from src.cpu_kernels.library import has_bf16_products
from tests.helpers.run_files import assert_same_checkpoint, checkpoint, contents, read_lines
from tests.helpers.scripts import assert_all_end, wait_for

EPOCHS, STEPS_PER_EPOCH = 4, 6
LOSSES = ["loss", "rpn_cls_loss", "rpn_box_loss", "roi_cls_loss", "roi_box_loss"]
PROGRESS = {"epoch", "epoch_images", "global_step", "skipped_steps", "evaluated", "best_ap", "seed", "loss_scale",
            "loss_scale_counter", "best_epoch", "evals_since_best"}
BUT_FOR_EVALUATION = {"best_ap", "best_epoch", "evaluated", "evals_since_best"}  # only one of the runs is evaluated


@pytest.fixture(scope="module")
def interrupted(workspace, run, start):
    """The folder of a run in three parts without evaluations, and the content of metrics.jsonl before the last part."""
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
    assert not (folder / "checkpoint" / "FasterRCNN_det_resnet18_epoch4_rank0.ckpt").exists()
    before = read_lines(folder)
    assert "resuming after epoch 3" in run("train.py", folder, "--resume_ckpt", checkpoint(folder, "epoch3_rank0"))
    return folder, before


@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_two_epochs_and_two_make_the_same_weights_momenta_and_losses_as_one_run(epoch, straight, interrupted):
    """The kill was in epoch 4. The number of epochs and evaluations does not change the weights either."""
    assert_same_checkpoint(checkpoint(interrupted[0], f"epoch{epoch}_rank0"), checkpoint(straight[0], f"epoch{epoch}_rank0"),
                           BUT_FOR_EVALUATION)


def test_the_metrics_of_a_run_with_a_kill_hold_every_step_once(straight, interrupted):
    folder, before = interrupted
    lines = read_lines(straight[0])
    assert len(before) > 3 * STEPS_PER_EPOCH and before == lines[:len(before)] and read_lines(folder) == lines


def test_metrics_lines(straight):
    lines = read_lines(straight[0])
    assert [line["global_step"] for line in lines] == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1))
    assert [(line["epoch"], line["step"]) for line in lines] == [
        (epoch, step) for epoch in range(1, EPOCHS + 1) for step in range(1, STEPS_PER_EPOCH + 1)]
    for line in lines:
        assert set(line) == {"epoch", "step", "global_step", *LOSSES, "lr", "loss_scale", "skipped_steps"}
        assert np.isfinite(line["loss"]) and line["loss"] == pytest.approx(sum(line[name] for name in LOSSES[1:]), rel=1e-6)
        # bfloat16 has no loss scale, and float32 keeps the scale of the configuration.
        assert line["loss_scale"] == (1 if has_bf16_products() else 131072) and line["skipped_steps"] == 0
    # Learning rate: warm-up over 4 steps from 0.001 of 0.02, and a tenth of it after the third epoch.
    ramp = [0.02 * (0.001 + 0.999 * step / 4) for step in range(4)]
    assert [line["lr"] for line in lines] == pytest.approx(ramp + [0.02] * 14 + [0.002] * 6)


def test_checkpoint_names_and_contents(straight):
    folder, _ = straight
    names = sorted(path.name for path in (folder / "checkpoint").iterdir())
    assert names == [f"FasterRCNN_det_resnet18_{suffix}.ckpt"
                     for suffix in ("best", *(f"epoch{epoch}_rank0" for epoch in range(1, EPOCHS + 1)))]
    stored = contents(checkpoint(folder, "epoch3_rank0"))
    weights = {name for name in stored if stored[name].ndim and not name.startswith("moments.")}
    momenta = {name for name in stored if name.startswith("moments.")}
    assert set(stored) - weights - momenta == PROGRESS - ({"loss_scale_counter"} if has_bf16_products() else set())
    assert {name[len("moments."):] for name in momenta} == {
        name for name in weights if not name.endswith(("moving_mean", "moving_variance"))}
    assert any(np.any(stored[name]) for name in momenta)
    assert stored["epoch"] == 3 and stored["global_step"] == 3 * STEPS_PER_EPOCH and stored["seed"] == 1234


def test_a_few_steps_are_profiled_and_the_weights_are_the_same(workspace, run, uninterrupted):
    folder = workspace / "profiled"
    output = run("train.py", folder, "--mix", "False", "--run_profilor", "True", epochs=2)
    assert f"steps 3 to 7 of this run are profiled in {folder / 'profiler'}" in output
    [trace] = (folder / "profiler").glob("*/ASCEND_PROFILER_OUTPUT/trace_view.json")
    assert len(json.loads(trace.read_text())) > 100
    [table] = (folder / "profiler").glob("*/FRAMEWORK/cpu_op_type_info_0.csv")
    with table.open() as file:
        updates = {row["op_type"]: int(row["type_occurrences"]) for row in csv.DictReader(file)}["ApplyMomentum"]
    # One per step and weight.
    assert updates == 5 * sum(name.startswith("moments.") for name in contents(checkpoint(folder, "epoch2_rank0")))
    assert_same_checkpoint(checkpoint(folder, "epoch2_rank0"), checkpoint(uninterrupted, "epoch2_rank0"))
