"""deploy/detect.py with an exported detector finds, draws and lists the same as infer.py, where neither MindSpore nor this
project can be imported."""
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.helpers.paths import ROOT

# Runs the program in an interpreter that cannot import the packages its users do not have.
ALONE = """
import importlib.abc, runpy, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("mindspore", "mindcv", "src", "tools", "onnx", "pydantic", "yaml", "pycocotools"):
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Refuse())
sys.path[:] = [sys.argv[1], *(place for place in sys.path if place)]
sys.argv = ["detect.py", *sys.argv[2:]]
runpy.run_path(sys.path[0] + "/detect.py", run_name="__main__")
"""
SIZES = [(64, 64), (300, 200), (130, 190), (33, 90), (90, 33), (1000, 700)]  # width, height


@pytest.fixture(scope="module")
def photographs(workspace, shapes):
    """Images of many sizes: some are upright, EXIF turns one of them upright, and one is damaged."""
    folder = workspace / "photographs"
    folder.mkdir()
    sources = sorted((shapes / "val2017").iterdir())
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, size in enumerate(SIZES):
        image = Image.open(sources[number % len(sources)]).resize(size)
        image.save(folder / f"{number}.png")
        image.save(folder / f"{number}.jpg", exif=exif)
    (folder / "damaged.jpg").write_bytes((folder / "1.jpg").read_bytes()[:400])
    return folder


def entries(folder):
    return json.loads((folder / "detections.json").read_text())


def test_detections_and_drawings_are_those_of_infer(workspace, run, checkpoint, photographs):
    flags = ["--device_target", "CPU", "--mix", "False", "--ckpt_path", checkpoint, "--conf_threshold", "0.02"]
    own, other, path = workspace / "of_infer", workspace / "of_deploy", workspace / "detector.onnx"
    output, _ = run("export.py", *flags, "--file_format", "ONNX", "--output", path)
    assert f"{path} written" in output and "rows of both have a counterpart; boxes differ by up to" in output
    run("infer.py", *flags, "--image", photographs, "--save_dir", own)
    words = map(str, (sys.executable, "-c", ALONE, ROOT / "deploy", path, photographs, "--output", other))
    done = subprocess.run(list(words), cwd=workspace, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and f"WARNING {photographs}/damaged.jpg cannot be decoded" in done.stdout, done.stderr
    found, expected = entries(other), entries(own)
    assert len(expected) == 2 * len(SIZES) and sum(len(entry["detections"]) for entry in expected) > 30
    for entry, wanted in zip(found, expected):
        assert list(entry) == list(wanted)
        for key in ("file", "height", "width"):
            assert entry[key] == wanted[key]
        for row, other_row in zip(entry["detections"], wanted["detections"]):
            assert list(row) == list(other_row)
            assert (row["category"], row["label"]) == (other_row["category"], other_row["label"])
            np.testing.assert_allclose(row["score"], other_row["score"], rtol=0, atol=1e-5)
            np.testing.assert_allclose(row["bbox"], other_row["bbox"], rtol=0, atol=0.01)
        assert len(entry["detections"]) == len(wanted["detections"])
    drawings = [sorted(path.name for path in folder.iterdir()) for folder in (own, other)]
    assert drawings[0] == drawings[1] and len(drawings[0]) == 2 * len(SIZES) + 1
    # A coordinate near a half may be rounded in either direction.
    same = [(own / name).read_bytes() == (other / name).read_bytes() for name in drawings[0] if name != "detections.json"]
    assert sum(same) >= len(same) - 2
