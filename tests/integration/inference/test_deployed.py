"""deploy/detect.py with an exported detector finds, draws and lists the same as infer.py, where neither MindSpore nor this
project can be imported."""
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.paths import ROOT

# Runs the program in an interpreter that cannot import the packages its users do not have.
ALONE = """
import importlib.abc, runpy, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("mindspore", "mindcv", "src", "tools", "onnx", "pydantic", "yaml", "faster_coco_eval"):
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Refuse())
sys.path[:] = [sys.argv[1], *(place for place in sys.path if place)]
sys.argv = ["detect.py", *sys.argv[2:]]
runpy.run_path(sys.path[0] + "/detect.py", run_name="__main__")
"""


def test_detections_and_drawings_are_those_of_infer(workspace, shapes, run, checkpoint, images, inferred):
    own, expected = inferred[0], [*inferred[1].values()]
    other, path = workspace / "of_deploy", workspace / "detector.onnx"
    output, _ = run("export.py", "--device_target", "CPU", "--mix", "False", "--ckpt_path", checkpoint,
                    "--conf_threshold", "0.01", "--output", path)
    assert f"{path} written" in output and "rows of both have a counterpart; boxes differ by up to" in output
    words = (sys.executable, "-c", ALONE, ROOT / "deploy", path, shapes / "val2017" / "000002.jpg", images,
             shapes / "val2017" / "00000[134].jpg", "--output", other)
    done = subprocess.run(list(map(str, words)), cwd=workspace, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and f"WARNING {images}/damaged.jpg cannot be decoded" in done.stdout, done.stderr
    found = json.loads((other / "detections.json").read_text())
    assert len(found) == len(expected) and sum(len(entry["detections"]) for entry in expected) > 30
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
        name = Path(wanted["drawing"]).name
        assert Path(entry["drawing"]) == other / name
        assert Image.open(other / name).size == Image.open(own / name).size  # only the fonts of labels may differ
