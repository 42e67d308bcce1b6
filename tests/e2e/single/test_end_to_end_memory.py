"""The memory of a run does not grow."""
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from src.dataset.shapes import ensure_shapes
from tests.helpers.paths import ONE_LEVEL
from tests.helpers.run_files import checkpoint
from tests.helpers.scripts import wait_until


@pytest.fixture(scope="module")
def many_images(workspace):
    """The settings for a data set with 200 training images and 2,000 validation images."""
    folder = workspace / "many"
    ensure_shapes(str(folder), train_images=200, val_images=2000, height=64, width=64, seed=1)
    return {"data__dataset_dir": folder, "data__draw_shapes": None, "data__target_size": "[32,32]"}


def peaks(program):
    """Return the peak resident memory in MB since the last call, for the process and for each child process, from Linux."""
    found = []
    for process in (program, *program.children(recursive=True)):
        folder = Path(f"/proc/{process.pid}")
        found.append(int(re.search(r"VmHWM:\s+(\d+) kB", (folder / "status").read_text())[1]) / 2**10)
        (folder / "clear_refs").write_text("5")  # reset the peak
    return found


def assert_flat(program, log, done, first, warm, end, processes, growth):
    """Compare the peaks while `done()`, a number of steps or images, goes from `first` to `warm` with the peaks up to `end`,
    which may be larger by the factor `growth`."""
    program.cpu_affinity(program.cpu_affinity()[:1])  # on images this small, threads would spend the time waiting for each other
    wait_until(lambda: done() >= first, program, log)
    peaks(program)
    wait_until(lambda: done() >= warm, program, log)
    assert done() < end / 2
    before = peaks(program)
    assert len(before) >= processes
    wait_until(lambda: done() >= end, program, log)
    after = peaks(program)
    assert len(after) == len(before) and max(np.divide(after, before)) < growth, (before, after)


@pytest.mark.slow
def test_a_thousand_training_steps(start, workspace, config, many_images):
    folder, quick = workspace / "many_steps", workspace / "one_level.yml"
    quick.write_text(yaml.safe_dump({"__BASE__": [str(config), str(ONE_LEVEL)]}))
    program, log = start("train.py", folder, "--config", quick, "--mix", "False", "--num_workers", "2", "--batch_size", "1",
                         "--log_interval", "50", **many_images, backbone__frozen=True, epochs=7)
    # 200 steps are an epoch, at whose end a checkpoint is written.
    assert_flat(program, log, lambda: log.read_text().count(" INFO epoch ") * 50, first=150, warm=350, end=1350, processes=1,
                growth=1.02)


@pytest.mark.slow
def test_two_thousand_evaluated_images(start, uninterrupted, workspace, many_images):
    program, log = start("tests/programs/eval_often.py", workspace / "many_images", "--mix", "False",
                         "--num_workers", "2", "--batch_size", "8",
                         "--checkpoint_path", checkpoint(uninterrupted, "epoch6_rank0"), **many_images,
                         infer__conf_threshold=0.05, max_rowsize=8)  # at least two worker processes read images

    def done():
        return max(map(int, re.findall(r"evaluated (\d+) of 2000", log.read_text())), default=0)

    assert_flat(program, log, done, first=100, warm=300, end=1900, processes=3, growth=1.05)
