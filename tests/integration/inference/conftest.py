"""A tiny detector trained by the command line for some steps, and the detections of eval.py and infer.py with it."""
import shutil

import pytest
import yaml

from src.dataset.shapes import ensure_shapes
from tests.helpers.paths import TINY_DETECTOR
from tests.helpers.scripts import run_script

SHAPES = {"train_images": 8, "val_images": 4, "height": 64, "width": 64, "seed": 0}


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """A folder that is deleted with its checkpoints after the tests."""
    folder = tmp_path_factory.mktemp("inference")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def shapes(workspace):
    """Folder of the data set."""
    ensure_shapes(str(workspace / "shapes"), **SHAPES)
    return workspace / "shapes"


@pytest.fixture(scope="session")
def config(workspace, shapes, compiled):
    """Path of the configuration."""
    path = workspace / "tiny.yml"
    path.write_text(yaml.safe_dump({"__BASE__": str(TINY_DETECTOR), "epochs": 1, "compile_cache": compiled,
                                    "data": {"dataset_dir": str(shapes), "draw_shapes": SHAPES}}))
    return path


@pytest.fixture(scope="session")
def run(config):
    """A function of a script, flags and the expected status that runs it to its end: (standard output, standard error)."""
    def run_to_end(script, *flags, status=0):
        done = run_script(script, "--config", config, *flags, timeout=300)
        assert done.returncode == status, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout, done.stderr
    return run_to_end


@pytest.fixture(scope="session")
def trained(workspace, run):
    """Folder of a run of one epoch, with an evaluation at the end."""
    run("train.py", "--save_dir", workspace / "trained", "--run_eval", "True")
    return workspace / "trained"


@pytest.fixture(scope="session")
def checkpoint(trained):
    """Path of the last checkpoint of `trained`."""
    return trained / "checkpoint" / "FasterRCNN_det_resnet18_epoch1_rank0.ckpt"
