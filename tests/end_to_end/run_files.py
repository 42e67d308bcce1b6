"""What a run leaves behind, read for comparison."""
import json
import os
from pathlib import Path

import mindspore as ms

MEASURED = {"images_per_second", "data_wait", "eta_seconds"}  # in metrics.jsonl: what a clock gives


def read_lines(folder):
    """metrics.jsonl without what a clock gave."""
    lines = map(json.loads, (Path(folder) / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]


def checkpoint(folder, suffix):
    """The path of a checkpoint that training names by the promise."""
    return os.path.join(folder, "checkpoint", f"FasterRCNN_det_resnet18_{suffix}.ckpt")


def contents(path):
    """A checkpoint file as {name: array}."""
    return {name: parameter.asnumpy() for name, parameter in ms.load_checkpoint(str(path)).items()}


def read_json(*parts):
    """The JSON file whose path `parts` make."""
    return json.loads(Path(*parts).read_text())
