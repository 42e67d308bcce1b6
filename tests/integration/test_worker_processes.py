"""MindSpore's worker processes, with max_rowsize, exit when the loader ends and when the program exits."""
import os
import subprocess
import sys

import psutil
import pytest

from src.dataset.loader import TrainLoader
from src.dataset.shapes import ensure_shapes
from src.dataset.splits import open_training_set
from src.run.distributed import SingleProcess
from tests.helpers.paths import ROOT
from tests.helpers.tiny_networks import tiny_config

# MindSpore starts at most one worker per processor.
pytestmark = pytest.mark.skipif(os.cpu_count() < 2, reason="with one processor there are no worker processes")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Folder of a small data set."""
    folder = tmp_path_factory.mktemp("workers") / "shapes"
    ensure_shapes(str(folder), train_images=12, val_images=1, height=64, width=64, seed=0)
    return folder


def loader_of(folder):
    """Return a training loader with two worker processes and far more batches than these tests use."""
    cfg = tiny_config(num_workers=2, max_rowsize=8, epochs=500, data__dataset_dir=str(folder), data__draw_shapes=None)
    return TrainLoader(open_training_set(cfg, SingleProcess()), cfg)


def worker_processes():
    return [process for process in psutil.Process().children(recursive=True)
            if process.status() != psutil.STATUS_ZOMBIE]


def test_they_end_when_the_consumer_stops_early(shapes):
    before = len(worker_processes())
    stream = loader_of(shapes).batches()
    next(stream)
    assert len(worker_processes()) >= before + 2
    stream.close()
    assert len(worker_processes()) == before


PROGRAM = """
import sys, time
from tests.integration.test_worker_processes import loader_of, worker_processes
for batch in loader_of(sys.argv[1]).batches():
    print(*[process.pid for process in worker_processes()], flush=True)
    exec(sys.argv[2])
"""


@pytest.mark.parametrize(("then", "status"), [("sys.exit(0)", 0), ("raise KeyError('x')", 1), ("time.sleep(99)", -9)])
def test_none_is_left_behind_however_the_program_ends(shapes, then, status):
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(shapes), then], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as program:
        children = [psutil.Process(int(pid)) for pid in program.stdout.readline().split()]
        assert len(children) >= 2
        if status == -9:
            program.kill()
        assert program.wait(timeout=30) == status
        if status == 0:
            assert program.stderr.read() == ""
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
