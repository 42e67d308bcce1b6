"""mpirun, a tiny data set and a tiny detector."""
import shutil
from pathlib import Path

import pytest
import yaml

from src.dataset.shapes import ensure_shapes
from tests.helpers import run_files
from tests.helpers.mixed_shapes import draw_mixed_shapes
from tests.helpers.paths import TINY_DETECTOR
from tests.helpers.scripts import run_script

SHAPES = {"train_images": 9, "val_images": 7, "height": 64, "width": 64, "seed": 0}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """A folder that is deleted with its checkpoints after the tests."""
    folder = tmp_path_factory.mktemp("parallel")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def config(workspace):
    """The tiny detector with the learning rate for two ranks. It runs operator by operator, which needs no compilation.

    Two steps in test_parallel_training.py use graph mode.
    """
    folder, path = workspace / "shapes", workspace / "tiny.yml"
    ensure_shapes(str(folder), **SHAPES)
    path.write_text(yaml.safe_dump({"__BASE__": str(TINY_DETECTOR), "ms_mode": 1, "lr": {"base_batch_size": 4},
                                    "data": {"dataset_dir": str(folder), "draw_shapes": SHAPES}}))
    return path


@pytest.fixture(scope="session")
def two_canvases(workspace, config):
    """Path of a configuration like `config`, with wide and upright images on two canvases, and augmentation."""
    path = workspace / "two_canvases.yml"
    path.write_text(yaml.safe_dump({"__BASE__": str(config), "data": draw_mixed_shapes(workspace / "mixed", **SHAPES)}))
    return path


@pytest.fixture(scope="session")
def run():
    """A function that runs a Python program on the given number of ranks to its end and returns its output."""
    def run_to_end(ranks, *words):
        done = run_script(*words, ranks=ranks, timeout=330)
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        return done.stdout + done.stderr
    return run_to_end


@pytest.fixture(scope="session")
def trained(run, workspace, config):
    """The output and the folder of one epoch on two ranks, evaluated at its end."""
    folder = workspace / "trained"
    return run(2, "train.py", "--config", config, "--save_dir", folder, "--run_eval", "True", "-o", "epochs=1"), folder


@pytest.fixture(scope="session")
def checkpoint(trained):
    """Path of the checkpoint of `trained`."""
    return Path(run_files.checkpoint(trained[1], "epoch1_rank0"))


@pytest.fixture(scope="session")
def alone(run, workspace, config, checkpoint):
    """The results folder of an evaluation with a single process."""
    run(1, "eval.py", "--config", config, "--save_dir", workspace / "alone", "--checkpoint_path", checkpoint)
    return run_files.results(workspace / "alone")


def assert_last_step_is_saved(folder, output):
    """Check that the last checkpoint that a run's output names is that of its last step."""
    saved = [line.split(" saved ")[1] for line in output.splitlines() if " saved " in line]
    assert run_files.contents(saved[-1])["global_step"] == run_files.read_lines(folder)[-1]["global_step"]
