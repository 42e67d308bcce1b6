"""Published COCO detectors by name: from an empty cache and a local server to detections and to a fine-tuned detector."""
import functools
import hashlib
import json
import re
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from src.convert.downloads import SOURCES
from src.dataset.shapes import ensure_shapes
from tests.helpers.paths import ROOT
from tests.helpers.scripts import run_script
from tests.helpers.torch_pickles import torch_file
from tests.helpers.torchvision_files import detector_shapes, detector_v2_shapes

CONFIG = ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_coco_finetune_cpu.yml"
# COCO's category ids, which are the rows of the box head, and logits of the classes. All other logits are 0.
LOGITS = {18: ("dog", 6.0), 44: ("bottle", 5.5)}
SHAPES = {"train_images": 4, "val_images": 2, "height": 64, "width": 96, "seed": 0}
SMALL = ["data.target_size=[64,64]", "epochs=1", "run_eval=False", "bbox_head.bbox_assigner.rois_per_batch=16",
         *(f"rpn_head.{part}_proposal.{key}=50" for part in ("train", "test") for key in ("pre_nms_top_n", "post_nms_top_n"))]


def state_dict(shapes):
    """Return weights of a detector that finds dogs and bottles of the image's size. Only BatchNorm's scales and the biases of
    two classes are not 0."""
    state = {name: np.zeros(shape, np.float32 if shape else np.int64) for name, shape in shapes.items()}
    for name, array in state.items():
        if name.endswith("running_var") or re.search(r"(bn\d|\.1)\.weight$", name) and array.ndim == 1:
            array[:] = 1
    for row, (_, logit) in LOGITS.items():
        state["roi_heads.box_predictor.cls_score.bias"][row] = logit
        state["roi_heads.box_predictor.bbox_pred.bias"][4 * row + 2:4 * row + 4] = 20  # e^4 times as wide and as high
    return state


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A function of a name that returns arguments of tests/programs/local_weights.py; a server has a file with this name."""
    folder = tmp_path_factory.mktemp("served")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def publish(name, shapes, old):
        content = torch_file(state_dict(shapes), old)
        file = SOURCES[name][0].split("/")[-1]
        (folder / file).write_bytes(content)
        return f"{name}={hashlib.sha256(content).hexdigest()[:8]}=http://127.0.0.1:{server.server_port}/{file}", "--"
    yield publish
    server.shutdown()
    server.server_close()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment of programs with an empty cache folder, which is deleted with its weights (670 MB) after the tests."""
    folder = tmp_path_factory.mktemp("cache")
    yield {"XDG_CACHE_HOME": str(folder), "no_proxy": "127.0.0.1"}
    shutil.rmtree(folder)


def run(*words, folder, environment):
    """Run tests/programs/local_weights.py with arguments and return its standard output."""
    done = run_script(ROOT / "tests" / "programs" / "local_weights.py", *words, folder=folder, environment=environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(("name", "shapes", "old"), [
    ("torchvision:fasterrcnn_resnet50_fpn", detector_shapes("resnet50", 91, old=True), True),
    ("torchvision:fasterrcnn_resnet50_fpn_v2", detector_v2_shapes("resnet50", 91), False)])
def test_one_command_detects_coco_classes_and_another_fine_tunes(name, shapes, old, published, environment, tmp_path):
    """`infer.py --checkpoint_path torchvision:...` downloads the file, converts it and detects. PyTorch cannot be imported."""
    ensure_shapes(str(tmp_path / "data"), **SHAPES)
    local = functools.partial(run, *published(name, shapes, old), folder=tmp_path, environment=environment)
    output = local("infer.py", "--checkpoint_path", name, "--image", "data/val2017/")
    assert f"all {len(shapes)} tensors converted" in output
    listed = json.loads((tmp_path / "output/infer/detections.json").read_text())
    total = sum(np.exp(logit) for _, logit in LOGITS.values()) + 81 - len(LOGITS)
    assert len(listed) == SHAPES["val_images"]
    for entry in listed:
        assert (tmp_path / entry["drawing"]).is_file()
        assert {found["category"] for found in entry["detections"]} == {class_name for class_name, _ in LOGITS.values()}
        for found in entry["detections"]:
            assert found["score"] == pytest.approx(np.exp(dict(LOGITS.values())[found["category"]]) / total, abs=1e-4)
    if old:
        output = local("train.py", "--config", CONFIG, "-o", "data.dataset_dir=data", *SMALL)
        assert "downloading" not in output and "was trained with other classes" in output
        assert (tmp_path / "output/checkpoint/FasterRCNN_det_resnet50_epoch1_rank0.ckpt").is_file()
