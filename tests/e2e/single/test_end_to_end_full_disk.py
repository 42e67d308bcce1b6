"""A full disk is reported and the run continues. Files saved earlier stay."""
import contextlib
import logging
import os
import subprocess

import numpy as np
import pytest

from src.errors import UserError
from src.evaluation.evaluate import write_results
from src.train.metrics import Metrics
from src.train.state import TrainState
from tests.helpers.run_files import assert_same_checkpoint, checkpoint, read_lines
from tests.helpers.runs import run_folder, schedule, settings


@pytest.fixture
def disk(tmp_path):
    """A function that mounts an empty disk of the given size in MB, or resizes the mounted one."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(megabytes):
        options = f"{'remount,' * os.path.ismount(folder)}size={megabytes}m"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder):
    """Write a file that uses all the space that is left."""
    path = folder / "filler"
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return path


def test_checkpoints_on_a_full_disk(disk, start, run, uninterrupted):
    """The disk has room for the log first, then for one checkpoint of 91 MB, then for all checkpoints."""
    folder, flags = disk(1) / "out", ["--mix", "False", "--resume_ckpt", "auto"]
    os.makedirs(folder / "checkpoint")
    (folder / "report.html").write_text("")
    filler = fill(folder)
    message = run("train.py", folder, *flags, status=1, epochs=3)
    assert message.splitlines()[-1] == (f"error: checkpoints could not be written into {folder}/checkpoint (No space left on "
                                        "device); make room on the disk.")
    assert os.listdir(folder / "checkpoint") == []

    filler.unlink()
    disk(150)
    program, log = start("train.py", folder, *flags, epochs=3)
    assert program.wait(timeout=120) == 1
    output, paths = log.read_text(), [checkpoint(folder, f"epoch{epoch}_rank0") for epoch in (1, 2, 3)]
    for path in paths[1:]:
        assert (f"ERROR {path} could not be written (No space left on device); training goes on, and earlier checkpoints are as "
                "they were") in output
    assert output.splitlines()[-1] == (f"error: training is done, but {path} could not be written (No space left on device); "
                                       "make room and go on with --resume_ckpt auto.")
    assert "Traceback" not in output and os.listdir(folder / "checkpoint") == [os.path.basename(paths[0])]
    assert_same_checkpoint(paths[0], checkpoint(uninterrupted, "epoch1_rank0"))
    assert read_lines(folder) == read_lines(uninterrupted)[:18]

    disk(400)
    assert "resuming after epoch 1 of" in run("train.py", folder, *flags, epochs=3)
    assert_same_checkpoint(paths[2], checkpoint(uninterrupted, "epoch3_rank0"))


def test_metrics_wait_for_room(disk, caplog):
    folder = disk(1)
    path = str(folder / "metrics.jsonl")
    state = TrainState(0)
    with Metrics(settings(folder), run_folder(folder), schedule(100), state) as metrics:
        for step in range(20):
            if step == 5:
                filler = fill(folder)
            if step == 15:
                filler.unlink()
            state.advance(True)
            metrics.add(np.full(5, step, np.float32), 0.1, 1.0, {"data_wait": 0.0})
    assert [line["loss"] for line in read_lines(folder)] == list(range(20))
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors and all(error == f"{path} could not be written (No space left on device); training goes on" for error in errors)


def test_results_on_a_full_disk(disk):
    folder = disk(1)
    write_results(str(folder), {"AP": 0.5}, [{"score": 1}])
    before = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    filler = fill(folder)
    with pytest.raises(UserError, match=r"could not be written into .* \(No space left on device\); make room"):
        write_results(str(folder), {"AP": 0.6}, [{"score": 2}] * 1000)
    filler.unlink()
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == before
