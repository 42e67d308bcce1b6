"""A data set of four tiny images, and the scripts on it."""
import json

import pytest

from src.dataset.shapes import ensure_shapes
from tests.helpers.sentences import QUICK_START, refused_script


@pytest.fixture(scope="package")
def data_folder(tmp_path_factory):
    """Folder of a data set with three training images and one validation image."""
    folder = tmp_path_factory.mktemp("bad_input") / "shapes"
    ensure_shapes(str(folder), train_images=3, val_images=1, height=64, width=64, seed=0)
    return folder


@pytest.fixture
def coco(data_folder):
    """Content of the training annotations, which tests damage."""
    return json.loads((data_folder / "annotations" / "instances_train2017.json").read_text())


@pytest.fixture
def refused(data_folder, tmp_path, monkeypatch, capfd):
    """A function that runs a script with flags and -o settings, and returns the sentence of its error."""
    def run(script, *flags, **settings):
        overrides = {"data.dataset_dir": data_folder, "data.draw_shapes": None, "data.target_size": "[64,64]"}
        overrides.update((key.replace("__", "."), value) for key, value in settings.items())
        words = ["--config", QUICK_START, "--batch_size", "1", "--save_dir", tmp_path / "out", *flags,
                 "-o", *(f"{key}={value}" for key, value in overrides.items())]
        return refused_script(script, words, monkeypatch, capfd)
    return run
