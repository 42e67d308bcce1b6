"""An uninterrupted run of four epochs equals two epochs plus two more that are killed in the last epoch and resumed.

The first part of the second run stores its compiled graphs, and the later parts load them. The first run does not use these
graphs.
"""
import numpy as np
import pytest

from src.cpu_kernels.library import has_bf16_products
from tests.helpers.run_files import assert_same_checkpoint, checkpoint, contents, read_lines

EPOCHS, STEPS_PER_EPOCH = 4, 6
LOSSES = ["loss", "rpn_cls_loss", "rpn_box_loss", "roi_cls_loss", "roi_box_loss"]
PROGRESS = {"epoch", "epoch_images", "global_step", "skipped_steps", "evaluated", "best_ap", "seed", "loss_scale",
            "loss_scale_counter", "best_epoch", "not_better"}


@pytest.fixture(scope="module")
def interrupted(workspace, run, run_and_kill):
    """The folder of a run in three parts without evaluations, and the content of metrics.jsonl before the last part."""
    folder = workspace / "interrupted"
    run("train.py", folder, epochs=2)
    # The second part reads its images in worker processes. The checkpoint's seed replaces its flag --seed.
    log = run_and_kill(3 * STEPS_PER_EPOCH + 2, "train.py", folder, "--resume_ckpt", checkpoint(folder, "epoch2_rank0"),
                       "--seed", "5", "--num_workers", "2")
    assert "seed 1234 of" in log and "is used instead of 5" in log
    assert not (folder / "checkpoint" / "FasterRCNN_det_resnet18_epoch4_rank0.ckpt").exists()
    before = read_lines(folder)
    log = run("train.py", folder, "--resume_ckpt", checkpoint(folder, "epoch3_rank0"))
    assert "resuming after epoch 3" in log
    return folder, before


BUT_FOR_EVALUATION = {"best_ap", "best_epoch", "evaluated", "not_better"}  # only one of the runs is evaluated


@pytest.mark.parametrize("epoch", [1, 2])
def test_the_number_of_epochs_and_evaluations_do_not_change_the_weights(epoch, straight, interrupted):
    assert_same_checkpoint(checkpoint(interrupted[0], f"epoch{epoch}_rank0"),
                           checkpoint(straight[0], f"epoch{epoch}_rank0"), BUT_FOR_EVALUATION)


def test_two_epochs_and_two_make_the_same_weights_momenta_and_losses_as_one_run(straight, interrupted):
    folder, before = interrupted
    assert_same_checkpoint(checkpoint(folder, "epoch3_rank0"), checkpoint(straight[0], "epoch3_rank0"), BUT_FOR_EVALUATION)
    lines = read_lines(straight[0])
    assert len(before) > 3 * STEPS_PER_EPOCH and before == lines[:len(before)]


def test_a_killed_epoch_done_again_makes_the_same_weights_momenta_and_losses(straight, interrupted):
    assert_same_checkpoint(checkpoint(interrupted[0], "epoch4_rank0"), checkpoint(straight[0], "epoch4_rank0"),
                           BUT_FOR_EVALUATION)
    assert read_lines(interrupted[0])[-STEPS_PER_EPOCH:] == read_lines(straight[0])[-STEPS_PER_EPOCH:]


def test_the_metrics_of_a_run_with_a_kill_hold_every_step_once(straight, interrupted):
    assert read_lines(interrupted[0]) == read_lines(straight[0])


def test_metrics_lines(straight):
    lines = read_lines(straight[0])
    assert [line["global_step"] for line in lines] == list(range(1, EPOCHS * STEPS_PER_EPOCH + 1))
    assert [(line["epoch"], line["step"]) for line in lines] == [
        (epoch, step) for epoch in range(1, EPOCHS + 1) for step in range(1, STEPS_PER_EPOCH + 1)]
    assert all(set(line) == {"epoch", "step", "global_step", *LOSSES, "lr", "loss_scale", "skipped_steps"}
               for line in lines)
    assert np.isfinite([[line[name] for name in LOSSES] for line in lines]).all()
    for line in lines:
        assert line["loss"] == pytest.approx(sum(line[name] for name in LOSSES[1:]), rel=1e-6)
    # Learning rate: warm-up over 4 steps from 0.001 of 0.02, and a tenth of it after the third epoch.
    ramp = [0.02 * (0.001 + 0.999 * step / 4) for step in range(4)]
    assert [line["lr"] for line in lines] == pytest.approx(ramp + [0.02] * 14 + [0.002] * 6)


def test_bfloat16_has_no_loss_scale_and_float32_keeps_its_own(straight):
    lines = read_lines(straight[0])
    assert {line["loss_scale"] for line in lines} == {1 if has_bf16_products() else 131072}
    assert {line["skipped_steps"] for line in lines} == {0}


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
    last = read_lines(folder)[3 * STEPS_PER_EPOCH - 1]
    assert stored["loss_scale"] == last["loss_scale"] and stored["skipped_steps"] == last["skipped_steps"]
