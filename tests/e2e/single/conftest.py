"""A tiny detector and a tiny data set. The command line trains the detector once for all tests of this folder."""
import shutil
import sys
import time
from pathlib import Path

import pytest
import yaml

from src.dataset.shapes import ensure_shapes
from tests.helpers.mixed_shapes import draw_mixed_shapes
from tests.helpers.paths import ONE_LEVEL, TINY_DETECTOR
from tests.helpers.scripts import run_script, start_logged

SHAPES = {"train_images": 13, "val_images": 6, "height": 64, "width": 64, "seed": 0}
DAMAGED = "000005.jpg"  # one of the 13 training images; with batch size 2 an epoch has 6 steps


def tiny_settings(folder):
    """The tiny detector in fp16 with dynamic loss scaling."""
    return {
        "__BASE__": str(TINY_DETECTOR), "device_target": "CPU", "seed": 1234, "mix": True, "eval_interval": 1,
        "ms_loss_scaler": "dynamic", "ms_loss_scaler_value": 131072.0,
        "data": {"dataset_dir": str(folder), "draw_shapes": SHAPES},
        "lr": {"base_batch_size": 0, "warmup_ratio": 0.001, "decay_rate": 0.1},
    }


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """A folder that is deleted with its checkpoints (90 MB each) after the tests."""
    folder = tmp_path_factory.mktemp("end_to_end")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def data_folder(workspace):
    """The data set; one training image is cut off in the middle."""
    folder = workspace / "shapes"
    ensure_shapes(str(folder), **SHAPES)
    damaged = folder / "train2017" / DAMAGED
    damaged.write_bytes(damaged.read_bytes()[:damaged.stat().st_size // 2])
    return folder


@pytest.fixture(scope="session")
def config(workspace, data_folder, compiled):
    """Path of the configuration. Runs share compiled graphs: later runs with the same settings start in a third of the time."""
    path = workspace / "tiny.yml"
    path.write_text(yaml.safe_dump({**tiny_settings(data_folder), "compile_cache": compiled}))
    return path


@pytest.fixture(scope="session")
def command(config):
    """A function of a script's name, a results folder, flags and -o settings that returns the script with its arguments.

    A flag --config replaces the default configuration.
    """
    def build(script, save_dir, *flags, **settings):
        overrides = ["-o", *(f"{key.replace('__', '.')}={value}" for key, value in settings.items())]
        return [script, "--config", config, "--save_dir", save_dir, *flags, *overrides * bool(settings)]
    return build


@pytest.fixture(scope="session")
def run(command):
    """A function with the arguments of `command` that runs the command to its end and returns its standard output.

    If another exit status than 0 is expected, it returns standard error instead, which must be empty otherwise.
    """
    def run_to_end(script, save_dir, *flags, status=0, **settings):
        done = run_script(*command(script, save_dir, *flags, **settings))
        assert done.returncode == status, done.stdout[-2000:] + done.stderr[-4000:]
        assert status or done.stderr == ""
        return done.stderr if status else done.stdout
    return run_to_end


@pytest.fixture(scope="session")
def start(command):
    """A function with the arguments of `command` that starts the command: (process, path of its output).

    `before` are the first words of the command line, and `options` the options of `start_logged`.
    """
    def start_one(script, save_dir, *flags, before=(), options=None, **settings):
        log = Path(f"{save_dir}.{time.monotonic_ns()}.log")
        return start_logged(log, [*before, sys.executable, *command(script, save_dir, *flags, **settings)], **options or {}), log
    return start_one


@pytest.fixture(scope="session")
def uninterrupted(workspace, run):
    """The folder of an uninterrupted run of six epochs in fp32, with checkpoints only at the ends of epochs."""
    folder = workspace / "uninterrupted"
    run("train.py", folder, "--mix", "False", epochs=6, keep_checkpoint_max=6)
    return folder


@pytest.fixture(scope="session")
def two_canvases(workspace, compiled):
    """Path of a configuration like `config` in fp32, with wide and upright images on two canvases, and augmentation.

    The two images of a step are two micro-batches.
    """
    path = workspace / "two_canvases.yml"
    path.write_text(yaml.safe_dump({
        **tiny_settings(""), "__BASE__": [str(TINY_DETECTOR), str(ONE_LEVEL)], "mix": False, "batch_size": 1,
        "accumulate_steps": 2, "compile_cache": compiled, "data": draw_mixed_shapes(workspace / "mixed", **SHAPES)}))
    return path


@pytest.fixture(scope="session")
def straight(workspace, run):
    """An uninterrupted run of four epochs with a separate graph cache, evaluated after each epoch: (folder, standard output)."""
    folder = workspace / "straight"
    return folder, run("train.py", folder, "--run_eval", "True", "--compile_cache", "")
