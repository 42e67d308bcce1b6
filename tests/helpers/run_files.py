"""What a run leaves behind, read for comparison, and while it runs."""
import json
import os
import time
import zlib
from pathlib import Path

import mindspore as ms
import numpy as np

MEASURED = {"images_per_second", "data_wait", "eta_seconds"}  # in metrics.jsonl: what a clock gives


def read_lines(folder):
    """metrics.jsonl without what a clock gave."""
    lines = map(json.loads, (Path(folder) / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]


def checkpoint(folder, suffix):
    """The path of a checkpoint that training names by the promise."""
    return os.path.join(folder, "checkpoint", f"FasterRCNN_det_resnet18_{suffix}.ckpt")


def contents(path):
    """A checkpoint file but for its texts as {name: array}."""
    stored = ms.load_checkpoint(str(path))
    return {name: value.asnumpy() for name, value in stored.items() if not isinstance(value, str)}


def read_json(*parts):
    """The JSON file whose path `parts` make."""
    return json.loads(Path(*parts).read_text())


def assert_same_checkpoint(path, other, but=()):
    """Bit by bit, but for the numbers `but`."""
    found, expected = contents(path), contents(other)
    assert found.keys() == expected.keys()
    different = [name for name in found if found[name].dtype != expected[name].dtype
                 or not np.array_equal(found[name], expected[name])]
    assert set(different) <= set(but)


def is_intact(path):
    """Whether the file ends with the CRC-32 of all before it."""
    data = Path(path).read_bytes()
    return data[-17:-10] == b"crc_num" and int.from_bytes(data[-10:], "big") == zlib.crc32(data[:-17])


def wait_until(condition, program, log, pause=0.01):
    """Wait for a condition while a program runs; it fails with the end of its output where the program ends before."""
    deadline = time.monotonic() + 300
    while not condition():
        assert program.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(pause)
