"""tools/benchmark.py: error messages, the sum of operators by part, and the noise batch."""
import ast
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from src.checkpoint import Checkpoint
from src.config.command_line import parse_train_args
from src.dataset.shapes import ensure_shapes
from src.errors import UserError
from src.models import CLASSES
from src.run.distributed import SingleProcess
from src.run.environment import DEFAULTS
from tests.helpers.paths import ROOT, TINY_DETECTOR
from tools import benchmark
from tools.benchmarking.measure import MAX_BATCHES, PARTS, noise_batch, real_batches, seconds_by_part


@pytest.mark.parametrize(("flags", "sentence"), [
    (["--batch", "0"], "command line: batch_size must be at least 1, not 0"),
    (["--compare", "openvino,onnxruntime"],
     "--compare needs the package openvino, which is not installed; install it: pip install openvino 'numpy<2'"),
    (["--compare", "onnxruntime", "--what", "train,data"], "--compare needs predict in --what, and --weights needs train or"),
    (["--weights", "a.ckpt", "--what", "data"], "--compare needs predict in --what, and --weights needs train or"),
    (["--weights", "a.ckpt", "--classes", "3"], "--classes is the checkpoint's with --weights; leave it out"),
    (["--json", "file/results.json"], "cannot create the folder file (File exists); give file/results.json another path."),
    (["--steps", "0"], "--height, --width, --steps and --classes must be at least 1"),
])
def test_what_is_refused(run_tool, flags, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "openvino", None)  # simulates a missing package
    (tmp_path / "file").write_text("in the way")
    status, out, error = run_tool(benchmark, *flags)
    assert status == 1 and error.startswith(f"error: {sentence}") and error.count("\n") == 1


def test_what_the_parser_refuses(monkeypatch, capsys):
    for flag, known in (("--what", "train,predict,data"), ("--compare", "onnxruntime,openvino")):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", flag, f"{known},other"])
        with pytest.raises(SystemExit):
            benchmark.parse_args()
        assert f"{flag}: must be some of {known}, not 'other'" in capsys.readouterr().err


def test_peers_run_in_the_environment_of_the_user():
    """MindSpore's environment must not be used: OpenVINO's oneDNN would obey ONEDNN_MAX_CPU_ISA."""
    environment = {name: value for name, value in os.environ.items() if name not in DEFAULTS}
    code = ("from tools import benchmark; from src.run.environment import set_environment; set_environment(); import os; "
            "print(benchmark.ENVIRONMENT['OWN'], set(os.environ) - set(benchmark.ENVIRONMENT))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**environment, "OWN": "1", "GLOG_v": "2"},
                          capture_output=True, text=True, check=True)
    own, _, added = done.stdout.partition(" ")
    assert own == "1" and ast.literal_eval(added) == DEFAULTS.keys() - {"GLOG_v"}


def test_operators_are_summed_by_part(tmp_path):
    forward = "Default/forward-TrainingForward"
    kernels = f"{forward}/features_and_rpn-KernelFeaturesAndRPN/network-KernelNetwork"
    operators = [
        (1, f"{forward}/preprocess-Preprocess/Div-op0", "preprocess"),
        (2, f"{forward}/features_and_rpn-FeaturesAndRPN/network-FasterRCNN/fpn-FPN/lateral-CellList/0-Conv2d/Conv2D-op0",
         "first stage"),
        (3, f"{kernels}/Custom-op0", "first stage"),
        (4, f"{kernels}/run-_Run/Custom-op0", "backward"),
        (7, f"{forward}/sample_anchors-AnchorSampler/match-KernelMatcher/Custom-op0", "RPN"),
        (8, f"{forward}/propose-ProposalGenerator/NMSWithMask-op0", "proposals"),
        (9, f"{forward}/features-KernelTrainingFeatures/Custom-op1", "RoIAlign"),
        (10, f"{forward}/box_head-BoxHead/fc1-Dense/MatMul-op0", "heads"),
        (13, f"Gradients/{forward}/box_head-BoxHead/fc1-Dense/Grad_MatMul/MatMul-op0", "backward"),
        (14, f"{forward}/features-KernelTrainingFeatures/pools-KernelRoIAlignPair/Custom-op0", "backward"),
        (15, "Default/optimizer-Momentum/ApplyMomentum-op0", "optimizer"),
        (16, "Default/Mul-op3", "other"),
        (17, "Expand/_SumExt/ReduceSum-op0", "other"),
    ]
    path = tmp_path / "operators.csv"
    rows = [f"Host,Op,Op-op0,{name},1,{milliseconds}.5,0,0,Default,7" for milliseconds, name, _ in operators]
    path.write_text("\n".join(["op_side,op_type,op_name,full_op_name,op_occurrences,op_total_time(ms),op_avg_time(ms),"
                               "total_proportion,subgraph,pid", *rows, ""]))
    expected = dict.fromkeys(PARTS, 0)
    for milliseconds, _, part in operators:
        expected[part] += (milliseconds + 0.5) / 1000
    assert seconds_by_part(path) == pytest.approx(expected)


def test_the_batch_is_what_another_program_can_draw():
    rng = np.random.default_rng(0)
    noise = [rng.standard_normal((3, 96, 160)).astype(np.float32) for _ in range(2)]
    first_corners = rng.uniform(0, [96, 57.6], (6, 2))
    cfg = parse_train_args(["-o", "data.target_size=[96,160]"])
    pixels, valid_size, boxes, labels, mask = (column.asnumpy() for column in noise_batch(cfg, 4)[:5])
    assert np.array_equal(pixels.transpose(0, 3, 1, 2), np.clip(np.round(255 * np.stack(noise)), 0, 255))
    assert pixels.dtype == np.uint8 and valid_size.tolist() == [[96, 160]] * 2
    assert boxes.shape == (2, 8, 4) and np.allclose(boxes[0, :6, :2], first_corners) and not boxes[:, 6:].any()
    assert mask.sum(axis=1).tolist() == [6, 6] and labels[1, :8].tolist() == [0, 1, 2, 3, 0, 1, -1, -1]


def checkpoint_of(num_classes):
    return Checkpoint("a.ckpt", {f"{CLASSES}bias": np.zeros(num_classes + 1)}, {}, {}, {}, None, True)


def test_real_images_are_those_of_the_data_sets(tmp_path):
    """The batches have the images and boxes of the data set. The last evaluation batch is padded with its last image. A data set
    of other classes is refused."""
    folder = tmp_path / "shapes"
    ensure_shapes(str(folder), train_images=12, val_images=3, height=64, width=64, seed=0)
    shapes = parse_train_args(["--config", str(TINY_DETECTOR), "-o", f"data.dataset_dir={folder}", "data.draw_shapes=null"])
    batches = real_batches(shapes, SingleProcess(), checkpoint_of(4), ["train", "predict"])
    assert [batch.image_id.tolist() for batch in batches["predict"]] == [[1, 2], [3, 3]]
    train, val = (json.loads((folder / f"annotations/instances_{name}2017.json").read_text()) for name in ("train", "val"))
    names = {image["id"]: image["file_name"] for image in val["images"]}
    for batch in batches["predict"]:
        for number, image in zip(batch.image_id, batch.image.asnumpy()):
            assert np.array_equal(image[:, :, ::-1], cv2.imread(str(folder / "val2017" / names[number])))
    annotated = [row["image_id"] for row in train["annotations"]]
    assert len(batches["train"]) == MAX_BATCHES
    for batch in batches["train"]:
        assert batch.mask.asnumpy().sum(axis=1).tolist() == [annotated.count(number) for number in batch.image_id]
    for part in ("train", "predict"):
        with pytest.raises(UserError, match=r"2017.json has 4 classes, but a.ckpt has 5; give the configuration that it was "):
            real_batches(shapes, SingleProcess(), checkpoint_of(5), [part])
