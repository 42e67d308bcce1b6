"""Too little shared memory for the workers: a mount namespace whose /dev/shm is a few megabytes small."""
import os
import shutil
import subprocess
import sys

import pytest

from src.dataset.shared_memory import megabytes_of_queues
from tests.helpers.sentences import ROOT, assert_says, sentence_of

TINY = str(ROOT / "tests" / "tiny_detector.yml")


@pytest.mark.parametrize(("workers", "prefetch_size", "megabytes", "expected"), [
    (1, 4, 10, 0), (2, 4, 10, 120), (4, 4, 1, 24), (8, 4, 1, 32), (16, 4, 3, 192), (2, 1, 1, 8), (2, 100, 1, 204)])
def test_what_mindspore_allocates(workers, prefetch_size, megabytes, expected):
    """Its queues are min(prefetch, 4 * prefetch / workers) deep, at least 2, with two segments more."""
    assert megabytes_of_queues(workers, prefetch_size, megabytes) == expected


@pytest.fixture(scope="module")
def small():
    """A function that runs a command where /dev/shm has so many MB; skips where this process may not mount."""
    def run(megabytes, *words):
        script = f'mount -t tmpfs -o size={megabytes}m tmpfs /dev/shm && exec "$@"'
        return subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", *map(str, words)], cwd=ROOT, capture_output=True,
                              text=True, timeout=300)
    if shutil.which("unshare") is None:
        pytest.skip("there is no `unshare` (util-linux)")
    tried = run(1, "true")
    if tried.returncode:
        pytest.skip(f"no privilege to mount in a namespace: {tried.stderr.strip()}")
    return run


def command(data_folder, save_dir, workers, **settings):
    overrides = {"data.dataset_dir": data_folder, "data.draw_shapes": None, "epochs": 1, **settings}
    return [sys.executable, "train.py", "--config", TINY, "--save_dir", save_dir, "--batch_size", 1, "--num_workers", workers,
            "--ms_mode", 1, "-o", *(f"{key}={value}" for key, value in overrides.items())]


@pytest.mark.skipif(os.cpu_count() < 2, reason="MindSpore starts no more workers than processors")
@pytest.mark.parametrize(("megabytes", "settings", "needed"), [
    (4, {}, 12), (15, {}, 12), (20, {"run_eval": True}, 24), (100, {"prefetch_size": 1000}, 2 * 1002)])
def test_too_little_is_said_before_the_first_step(small, data_folder, tmp_path, megabytes, settings, needed):
    done = small(megabytes, *command(data_folder, tmp_path / "out", 2, **settings))
    assert done.returncode == 1
    assert_says(sentence_of(done.stderr), [
        f"need {needed} MB of shared memory, which must be less than 80% of the {megabytes} MB that are free in /dev/shm: give "
        "--num_workers 1, a smaller prefetch_size"])
    assert "step 1" not in done.stdout


@pytest.mark.parametrize(("megabytes", "workers"), [(1, 1), (17, 2)])
def test_what_is_said_to_help_does(small, data_folder, tmp_path, megabytes, workers):
    done = small(megabytes, *command(data_folder, tmp_path / "out", workers))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "epoch 1/1 step 3/3" in done.stdout
    shutil.rmtree(tmp_path / "out")
