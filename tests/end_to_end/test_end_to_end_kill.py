"""A run that is killed again and again ends with the weights of one that was not."""
import random
import time

import pytest
from run_files import assert_same_checkpoint, checkpoint, is_intact, read_lines, wait_until

# 20 lives, each ended by SIGKILL: at any time after its start, while it trains, and while it writes a checkpoint.
MOMENTS = ["anywhere"] * 6 + ["training"] * 6 + ["writing"] * 8
SAVING = {"epochs": 10, "save_interval_steps": 1, "keep_checkpoint_max": 3}


def partial_files(folder):
    return list((folder / "checkpoint").glob(".partial_*"))


def wait_for(moment, rng, folder, program, log):
    """Return at a random time of the kind that `moment` says."""
    if moment == "anywhere":
        time.sleep(rng.uniform(0, 6))
    elif moment == "training":
        wait_until(lambda: " INFO epoch " in log.read_text(), program, log)
        time.sleep(rng.uniform(0, 1))
    else:
        wait_until(lambda: partial_files(folder), program, log, pause=0.001)
        time.sleep(rng.uniform(0, 0.1))


@pytest.mark.slow
def test_twenty_kills(workspace, start, run, quick, uninterrupted):
    folder, rng = workspace / "killed", random.Random(5)
    flags = [*quick, "--resume_ckpt", "auto"]
    cut_writes = 0
    for moment in rng.sample(MOMENTS, len(MOMENTS)):
        for path in partial_files(folder):
            path.unlink()  # of the life before
        there = sorted((folder / "checkpoint").glob("*.ckpt"))
        program, log = start("train.py", folder, *flags, **SAVING)
        wait_for(moment, rng, folder, program, log)
        assert program.poll() is None, log.read_text()[-4000:]
        program.kill()
        program.wait()
        cut_writes += len(partial_files(folder)) > 0
        assert all(is_intact(path) for path in (folder / "checkpoint").glob("*.ckpt"))
        output = log.read_text()
        assert "passed over" not in output and "error" not in output
        if moment != "anywhere":
            assert ("resuming after" if there else "no checkpoint in") in output
    assert cut_writes >= 5
    assert "resuming after" in run("train.py", folder, *flags, **SAVING)
    assert_same_checkpoint(checkpoint(folder, "epoch10_rank0"), checkpoint(uninterrupted, "epoch10_rank0"))
    assert read_lines(folder) == read_lines(uninterrupted)
    names = [path.name for path in (folder / "checkpoint").iterdir()]
    assert len(names) == 3 and all(name.endswith(".ckpt") for name in names)


@pytest.fixture(scope="module")
def six_steps(workspace, run, quick):
    """A folder with the checkpoints of steps 2, 4 and 6, which is the end of the first epoch."""
    folder = workspace / "six_steps"
    run("train.py", folder, *quick, epochs=1, save_interval_steps=2)
    return folder


def test_damaged_checkpoints_are_named_and_passed_over(run, quick, six_steps, uninterrupted):
    step_2, step_4, step_6 = (checkpoint(six_steps, suffix) for suffix in
                              ("epoch1_step2_rank0", "epoch1_step4_rank0", "epoch1_rank0"))
    with open(step_6, "r+b") as file:  # one bit, in the middle
        file.seek(40_000_000)
        byte = file.read(1)[0]
        file.seek(40_000_000)
        file.write(bytes([byte ^ 1]))
    with open(step_4, "r+b") as file:
        file.truncate(50_000_000)
    output = run("train.py", six_steps, *quick, "--resume_ckpt", "auto", epochs=1)
    assert f"passed over: {step_6} is damaged: it does not agree with its checksum" in output
    assert f"passed over: {step_4} is damaged" in output
    assert f"resuming after epoch 0 and 4 images of {step_2}" in output
    assert_same_checkpoint(step_6, checkpoint(uninterrupted, "epoch1_rank0"))

    for path in (step_2, step_4, step_6):
        with open(path, "r+b") as file:
            file.truncate(60_000_000)
    message = run("train.py", six_steps, *quick, "--resume_ckpt", "auto", status=1, epochs=1)
    assert "error: not one of the 3 checkpoints in" in message and "move them away to start anew" in message
