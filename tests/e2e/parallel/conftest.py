"""mpirun, a tiny data set and a tiny detector."""
import shutil

import pytest
import yaml

from src.dataset.shapes import ensure_shapes
from tests.helpers.launching import MPIRUN
from tests.helpers.mixed_shapes import TWO_CANVASES, draw_mixed_shapes
from tests.helpers.paths import TINY_DETECTOR
from tests.helpers.ranks import run_ranks
from tests.helpers.skipping import skip_or_fail

SHAPES = {"train_images": 9, "val_images": 7, "height": 64, "width": 64, "seed": 0}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """A folder that is deleted with its checkpoints after the tests."""
    if MPIRUN is None:
        skip_or_fail("there is no mpirun; requirements-dev.txt installs one")
    folder = tmp_path_factory.mktemp("parallel")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def config(workspace):
    """The tiny detector with the learning rate for two ranks. It runs operator by operator, which needs no compilation.

    Two steps in test_parallel_training.py use graph mode.
    """
    folder = workspace / "shapes"
    ensure_shapes(str(folder), **SHAPES)
    settings = {
        "__BASE__": str(TINY_DETECTOR),
        "ms_mode": 1,
        "data": {"dataset_dir": str(folder), "draw_shapes": SHAPES},
        "lr": {"base_batch_size": 4},
    }
    path = workspace / "tiny.yml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="session")
def two_canvases(workspace, config):
    """Path of a configuration like `config`, with wide and upright images on two canvases, and augmentation."""
    folder = workspace / "mixed"
    draw_mixed_shapes(folder, **{**SHAPES, "width": 96})
    path = workspace / "two_canvases.yml"
    data = {"dataset_dir": str(folder), "draw_shapes": None, **TWO_CANVASES}
    path.write_text(yaml.safe_dump({"__BASE__": str(config), "data": data}))
    return path


@pytest.fixture(scope="session")
def run():
    """A function that runs a Python program on the given number of ranks to its end and returns its output."""
    def run_to_end(ranks, *words):
        done = run_ranks(ranks, *words)
        output = done.stdout + done.stderr
        assert done.returncode == 0, output[-6000:]
        return output
    return run_to_end


@pytest.fixture(scope="session")
def evaluate(run, workspace, config, trained):
    """A function that evaluates the checkpoint of `trained` with n processes; returns the output and the results folder."""
    def evaluate_on(ranks):
        checkpoint = trained[1] / "checkpoint" / "FasterRCNN_det_resnet18_epoch1_rank0.ckpt"
        folder = workspace / f"eval_{ranks}"
        output = run(ranks, "eval.py", "--config", config, "--save_dir", folder, "--checkpoint_path", checkpoint)
        return output, folder / "eval"
    return evaluate_on


@pytest.fixture(scope="session")
def alone(evaluate):
    """The output and the results of a single process."""
    return evaluate(1)


@pytest.fixture(scope="session")
def trained(run, workspace, config):
    """The output and the folder of one epoch on two ranks, evaluated at its end."""
    folder = workspace / "trained"
    output = run(2, "train.py", "--config", config, "--save_dir", folder, "--run_eval", "True", "-o", "epochs=1")
    return output, folder
