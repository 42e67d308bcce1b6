"""A run that is killed again and again ends with the weights of one that was not."""
import os
import random
import time

import pytest

from tests.helpers.run_files import assert_same_checkpoint, checkpoint, is_intact, read_lines, wait_until

# The ends of eight lives: at any time up to its third step, while the run trains, and while it writes a checkpoint.
MOMENTS = ["anywhere"] * 2 + ["training"] * 2 + ["writing"] * 4
RESUME = ["--resume_ckpt", "auto"]
FLAGS = ["--mix", "False", *RESUME]
WHOLE = {"epochs": 6, "keep_checkpoint_max": 3}


def partial_files(folder):
    return list((folder / "checkpoint").glob(".partial_*"))


def wait_for(moment, rng, folder, program, log):
    """Return at a random time of the kind that `moment` says."""
    if moment == "anywhere":
        end = time.monotonic() + rng.uniform(0, 10)
        wait_until(lambda: time.monotonic() > end or log.read_text().count(" INFO epoch ") >= 3, program, log)
    elif moment == "training":
        steps = rng.randint(2, 3)
        wait_until(lambda: log.read_text().count(" INFO epoch ") >= steps, program, log)
        time.sleep(rng.uniform(0, 0.3))
    else:
        complete = rng.randint(0, 2)
        wait_until(lambda: log.read_text().count(" INFO saved ") >= complete, program, log, pause=0.001)
        wait_until(lambda: partial_files(folder), program, log, pause=0.001)
        time.sleep(rng.uniform(0, 0.1))


def live_and_die(moment, rng, folder, start, flags):
    """Go on from the newest checkpoint, if there is one, and be killed; returns whether that cut off a checkpoint."""
    for path in partial_files(folder):
        path.unlink()  # of the life before
    resumable = any((folder / "checkpoint").glob("*.ckpt"))
    program, log = start("train.py", folder, *flags, **WHOLE, save_interval_steps=1)
    wait_for(moment, rng, folder, program, log)
    assert program.poll() is None, log.read_text()[-4000:]
    program.kill()
    program.wait()
    assert all(is_intact(path) for path in (folder / "checkpoint").glob("*.ckpt"))
    output = log.read_text()
    assert "passed over" not in output and "error" not in output
    if moment != "anywhere":
        assert ("resuming after" if resumable else "no checkpoint in") in output
    return len(partial_files(folder)) > 0


@pytest.mark.slow
def test_eight_kills(workspace, start, run, two_canvases):
    """A run with micro-batches, two canvases and augmentation, killed as MOMENTS says in a random order."""
    folder, whole, flags = workspace / "killed", workspace / "not_killed", ["--config", two_canvases]
    run("train.py", whole, *flags, **WHOLE)
    flags += RESUME
    rng = random.Random(5)
    cut_off = sum(live_and_die(moment, rng, folder, start, flags) for moment in rng.sample(MOMENTS, len(MOMENTS)))
    assert cut_off >= 3  # checkpoints that were being written
    assert "resuming after" in run("train.py", folder, *flags, **WHOLE)
    assert_same_checkpoint(checkpoint(folder, "epoch6_rank0"), checkpoint(whole, "epoch6_rank0"))
    assert read_lines(folder) == read_lines(whole)
    names = [path.name for path in (folder / "checkpoint").iterdir()]
    assert len(names) == 3 and all(name.endswith(".ckpt") for name in names)


def flip_a_bit(path):
    with open(path, "r+b") as file:
        file.seek(40_000_000)  # in the middle
        byte = file.read(1)[0]
        file.seek(40_000_000)
        file.write(bytes([byte ^ 1]))


def test_damaged_checkpoints_are_named_and_passed_over(workspace, run, uninterrupted):
    folder, settings = workspace / "damaged_run", {"epochs": 1, "save_interval_steps": 2}
    run("train.py", folder, "--mix", "False", **settings)
    step_2, step_4, step_6 = (checkpoint(folder, suffix) for suffix in
                              ("epoch1_step2_rank0", "epoch1_step4_rank0", "epoch1_rank0"))
    flip_a_bit(step_6)
    os.truncate(step_4, 50_000_000)
    output = run("train.py", folder, *FLAGS, **settings)
    assert f"passed over: {step_6} is damaged: it does not agree with its checksum" in output
    assert f"passed over: {step_4} is damaged" in output
    assert f"resuming after epoch 0 and 4 images of {step_2}" in output
    assert_same_checkpoint(step_6, checkpoint(uninterrupted, "epoch1_rank0"))

    for path in (step_2, step_4, step_6):
        os.truncate(path, 60_000_000)
    message = run("train.py", folder, *FLAGS, status=1, **settings)
    assert "error: not one of the 3 checkpoints in" in message and "move them away to start anew" in message
