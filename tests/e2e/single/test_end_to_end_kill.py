"""A run that is killed repeatedly ends with the weights of an uninterrupted run."""
import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from src.checkpoint import is_intact
from tests.helpers.run_files import assert_same_checkpoint, checkpoint, contents, read_lines
from tests.helpers.scripts import wait_until

# When the ten runs are killed: at a random time before the third step, after a step, or while a checkpoint is written.
MOMENTS = ["anywhere"] * 2 + ["training"] * 3 + ["writing"] * 5
RESUME = ["--resume_ckpt", "auto"]
WHOLE = {"epochs": 6, "keep_checkpoint_max": 3}


def unfinished(folder):
    """Return the unfinished checkpoints of a run, but not the test file that it writes at its start."""
    return list((folder / "checkpoint").glob(".partial_FasterRCNN_det_*"))


def wait_for(moment, rng, folder, program, log):
    """Return at a random time of the kind `moment`. While a checkpoint is written, the program is suspended."""
    if moment != "writing":
        steps, seconds = (3, rng.uniform(0, 10)) if moment == "anywhere" else (rng.randint(1, 3), 300)
        end = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() > end or log.read_text().count(" INFO epoch ") >= steps, program, log)
    else:
        size = rng.uniform(0, 90e6)  # the file has 91 MB
        while True:
            with contextlib.suppress(FileNotFoundError):  # the file was just completed
                wait_until(lambda: any(path.stat().st_size >= size for path in unfinished(folder)), program, log, pause=0.001)
            program.send_signal(signal.SIGSTOP)
            wait_until(lambda: psutil.Process(program.pid).status() == psutil.STATUS_STOPPED, program, log)
            if unfinished(folder):
                return
            program.send_signal(signal.SIGCONT)


def live_and_die(moment, rng, folder, start, flags):
    """Resume from the newest checkpoint, if one exists, and be killed."""
    resumable, left = any((folder / "checkpoint").glob("*.ckpt")), set(unfinished(folder))
    program, log = start("train.py", folder, *flags, **WHOLE, save_interval_steps=1)
    wait_until(lambda: not left.intersection(unfinished(folder)), program, log)  # files of the run before
    wait_for(moment, rng, folder, program, log)
    assert program.poll() is None, log.read_text()[-4000:]
    program.kill()
    program.wait()
    assert all(is_intact(path) for path in (folder / "checkpoint").glob("*.ckpt"))
    output = log.read_text()
    assert "passed over" not in output and "error" not in output and "superseded" not in output
    if moment != "anywhere":
        assert ("resuming after" if resumable else "no checkpoint in") in output
    assert unfinished(folder) or moment != "writing"


@pytest.mark.slow
def test_ten_kills(workspace, start, run, two_canvases):
    """A run with micro-batches, two canvases and augmentation, killed at all MOMENTS in random order."""
    folder, whole, flags = workspace / "killed", workspace / "not_killed", ["--config", two_canvases]
    run("train.py", whole, *flags, **WHOLE)
    flags += RESUME
    rng = random.Random(5)
    for moment in rng.sample(MOMENTS, len(MOMENTS)):
        live_and_die(moment, rng, folder, start, flags)
    assert "resuming after" in run("train.py", folder, *flags, **WHOLE)
    assert_same_checkpoint(checkpoint(folder, "epoch6_rank0"), checkpoint(whole, "epoch6_rank0"))
    assert read_lines(folder) == read_lines(whole)
    names = [path.name for path in (folder / "checkpoint").iterdir()]
    assert len(names) == 3 and all(name.endswith(".ckpt") for name in names)


def test_the_best_checkpoint_is_there_or_the_epoch_is_evaluated_again(workspace, start, run):
    """A run is killed while it writes the best checkpoint. The next run cannot write it because a folder has that name."""
    folder = workspace / "best"
    best, flags = checkpoint(folder, "best"), ["--mix", "False", "--run_eval", "True"]
    program, log = start("train.py", folder, *flags, epochs=1)
    wait_until(lambda: any("resnet18_best" in path.name for path in unfinished(folder)), program, log, pause=0.001)
    program.kill()
    program.wait()
    assert contents(checkpoint(folder, "epoch1_rank0"))["evaluated"] == 0
    os.mkdir(best)
    message = run("train.py", folder, *flags, *RESUME, status=1, epochs=1)
    assert f"error: training is done, but {best} could not be written (Is a directory)" in message
    os.rmdir(best)
    assert contents(checkpoint(folder, "epoch1_rank0"))["evaluated"] == 0
    assert "evaluated 6 of 6 images" in run("train.py", folder, *flags, *RESUME, epochs=1)
    assert contents(best)["evaluated"] == 1
    assert_same_checkpoint(best, checkpoint(folder, "epoch1_rank0"))
    assert [json.loads(line)["epoch"] for line in (folder / "evaluations.jsonl").read_text().splitlines()] == [1]


def test_damaged_checkpoints_are_named_and_passed_over(workspace, run, uninterrupted):
    folder, flags, settings = workspace / "damaged_run", ["--mix", "False", *RESUME], {"epochs": 1, "save_interval_steps": 2}
    run("train.py", folder, *flags, **settings)
    step_2, step_4, step_6 = (checkpoint(folder, suffix) for suffix in
                              ("epoch1_step2_rank0", "epoch1_step4_rank0", "epoch1_rank0"))
    data = bytearray(Path(step_6).read_bytes())
    data[40_000_000] ^= 1
    Path(step_6).write_bytes(data)
    os.truncate(step_4, 50_000_000)
    output = run("train.py", folder, *flags, **settings)
    assert f"passed over: {step_6} is damaged" in output and "it does not agree with its checksum" in output
    assert f"passed over: {step_4} is damaged" in output
    assert f"resuming after epoch 0 and 4 images of {step_2}" in output
    assert_same_checkpoint(step_6, checkpoint(uninterrupted, "epoch1_rank0"))

    for path in (step_2, step_4, step_6):
        os.truncate(path, 60_000_000)
    message = run("train.py", folder, *flags, status=1, **settings)
    assert "error: none of the 3 checkpoints in" in message and "move them away to start from step 0" in message
