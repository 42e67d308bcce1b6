"""Read the output files of a run."""
import json
import os
from pathlib import Path

import mindspore as ms
import numpy as np

MEASURED = {"images_per_second", "data_wait", "eta_seconds"}  # time measurements in metrics.jsonl


def read_lines(folder):
    """Return metrics.jsonl without time measurements."""
    lines = map(json.loads, (Path(folder) / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]


def checkpoint(folder, suffix):
    """Return the path of the checkpoint that training announces in its output."""
    return os.path.join(folder, "checkpoint", f"FasterRCNN_det_resnet18_{suffix}.ckpt")


def contents(path):
    """Return a checkpoint file, without texts, as {name: array}."""
    stored = ms.load_checkpoint(str(path))
    return {name: value.asnumpy() for name, value in stored.items() if not isinstance(value, str)}


def read_json(*parts):
    """Return the content of the JSON file at the path `parts`."""
    return json.loads(Path(*parts).read_text())


def results(folder):
    """Return the folder of the only results that eval.py has written into the run folder `folder`."""
    [path] = Path(folder, "eval").rglob("metrics.json")
    return path.parent


def assert_same_checkpoint(path, other, but=()):
    """Check that two checkpoints are bit-identical, except for the numbers `but`."""
    found, expected = contents(path), contents(other)
    assert found.keys() == expected.keys()
    different = [name for name in found if found[name].dtype != expected[name].dtype
                 or not np.array_equal(found[name], expected[name])]
    assert set(different) <= set(but)
