"""A full disk is reported and the run continues. Files saved earlier stay."""
import contextlib
import logging
import os
import resource
import subprocess

import numpy as np
import psutil
import pytest

from src.checkpoint import is_intact
from src.errors import UserError
from src.evaluation.evaluate import write_results
from src.train.metrics import Metrics
from src.train.state import TrainState
from tests.helpers.run_files import assert_same_checkpoint, checkpoint, read_lines
from tests.helpers.runs import run_folder, schedule, settings
from tests.helpers.scripts import wait_for, wait_until


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
    """The disk has room for one checkpoint of 91 MB. Only this test checks that no incomplete file is left in the folder."""
    folder = disk(150) / "out"
    program, log = start("train.py", folder, "--mix", "False", epochs=2)
    assert program.wait(timeout=120) == 1
    output = log.read_text()
    path = checkpoint(folder, "epoch2_rank0")
    assert (f"ERROR {path} could not be written (No space left on device); training goes on, and earlier checkpoints are as "
            "they were") in output
    assert output.splitlines()[-1] == (f"error: training is done, but {path} could not be written (No space left on device); "
                                       "make room and go on with --resume_ckpt auto.")
    assert "Traceback" not in output
    assert os.listdir(folder / "checkpoint") == ["FasterRCNN_det_resnet18_epoch1_rank0.ckpt"]
    assert_same_checkpoint(checkpoint(folder, "epoch1_rank0"), checkpoint(uninterrupted, "epoch1_rank0"))
    assert read_lines(folder) == read_lines(uninterrupted)[:12]

    disk(400)
    assert "resuming after epoch 1 of" in run("train.py", folder, "--mix", "False", "--resume_ckpt", "auto", epochs=2)
    assert_same_checkpoint(path, checkpoint(uninterrupted, "epoch2_rank0"))


def test_a_disk_that_is_full_at_the_start(disk, run):
    """Before the first step, the disk has room for the log but not for a checkpoint."""
    folder = disk(1) / "out"
    os.makedirs(folder / "checkpoint")
    (folder / "report.html").write_text("")
    fill(folder)
    message = run("train.py", folder, "--mix", "False", "--ms_mode", "1", status=1, epochs=1)
    assert message.splitlines()[-1] == (f"error: checkpoints could not be written into {folder}/checkpoint (No space left on "
                                        "device); make room on the disk.")
    assert os.listdir(folder / "checkpoint") == []


def test_a_disk_that_is_full_for_a_while(workspace, start, uninterrupted):
    """A limit on file sizes simulates the full disk."""
    folder = workspace / "full_for_a_while"
    program, log = start("train.py", folder, "--mix", "False", epochs=3, save_interval_steps=2)
    wait_for("saved", program, log)
    program.rlimit(psutil.RLIMIT_FSIZE, (50_000_000, resource.RLIM_INFINITY))
    wait_until(lambda: log.read_text().count("could not be written (File too large)") >= 2, program, log)
    assert all(is_intact(path) for path in (folder / "checkpoint").glob("*.ckpt"))
    program.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert program.wait(timeout=120) == 0
    assert_same_checkpoint(checkpoint(folder, "epoch3_rank0"), checkpoint(uninterrupted, "epoch3_rank0"))


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
