"""tools/benchmark.py: what it measures, prints and writes, and what it refuses."""
import json

import numpy as np
import pytest

from src.config.command_line import parse_train_args
from tools.benchmarking.breakdown import PARTS, seconds_by_part
from tools.benchmarking.inputs import draw_inputs, noise_batch, padding_size

TIMES = ["first_step_s", "train_step_s", "predict_s", "peak_gib"]
RATES = ["pipeline_images_per_s", "plain_images_per_s"]


def test_everything(run_benchmark, tmp_path):
    """At a size that is rounded up."""
    done = run_benchmark("--what", "train,predict,data", "--height", 40, "--json", tmp_path / "all.json")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "all.json").read_text())
    assert set(results) == {*TIMES, *RATES, "breakdown"}
    assert all(results[key] > 0 for key in (*TIMES, *RATES))
    assert results["first_step_s"] > results["train_step_s"]
    breakdown = results["breakdown"]
    assert tuple(breakdown) == PARTS
    assert breakdown["all_reduce"] == 0 and all(breakdown[part] > 0 for part in PARTS if part != "all_reduce")
    assert f"{results['train_step_s']:.3f} s" in done.stdout and f"{sum(breakdown.values()):.3f} s" in done.stdout
    assert all(f"\n{part} " in done.stdout for part in PARTS)
    assert "[40, 64] rounded up to [64, 64]" in done.stderr
    assert "\n[" not in done.stdout  # as the profiler's progress lines begin
    assert "overflowed" not in done.stdout


def test_the_pipeline_alone(run_benchmark, tmp_path):
    done = run_benchmark("--what", "data", "--json", tmp_path / "data.json")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "data.json").read_text())
    assert [key for key, value in results.items() if value is not None] == RATES
    figures = [line for line in done.stdout.splitlines() if " INFO " not in line]
    assert len(figures) == 2 and all(line.endswith(" images/s") for line in figures)


@pytest.mark.parametrize(("flags", "sentence"), [
    (["--what", "train,evaluate"], "--what must be some of train,predict,data, not 'evaluate'"),
    (["--steps", "0"], "--steps must be a whole number of at least 1, not '0'"),
    (["--height", "0"], "--height must be a whole number of at least 1, not '0'"),
    (["--width", "wide"], "--width must be a whole number of at least 1, not 'wide'"),
    (["--batch", "0"], "--batch_size: batch_size must be at least 1, not 0"),
    (["--json", "gone/results.json"], "cannot write gone/results.json: there is no folder 'gone'; make it first."),
])
def test_what_is_refused(run_benchmark, flags, sentence):
    done = run_benchmark(*flags)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {sentence}\n")


def test_operators_are_summed_by_part(tmp_path):
    forward = "Default/forward-TrainingForward"
    network = f"{forward}/network-FasterRCNN"
    operators = [
        (1, f"{forward}/preprocess-Preprocess/Div-op0", "preprocess"),
        (2, f"{network}/backbone-Backbone/parts-CellList/1-Chain/Conv2D-op0", "backbone"),
        (3, f"{network}/backbone-Backbone/parts-CellList/2-Chain/Conv2D-op0", "backbone"),
        (4, f"{network}/fpn-FPN/lateral-CellList/0-Conv2d/Conv2D-op0", "FPN"),
        (5, f"{network}/rpn_head-RPNHead/objectness-Conv2d/Conv2D-op0", "RPN"),
        (6, f"{forward}/rpn_loss-RPNLoss/Mul-op0", "RPN"),
        (7, f"{forward}/sample_anchors-AnchorSampler/match-KernelMatcher/Custom-op0", "RPN"),
        (8, f"{forward}/propose-ProposalGenerator/NMSWithMask-op0", "proposals"),
        (9, f"{forward}/features-KernelTrainingFeatures/pools-_PoolTwice/Custom-op0", "RoIAlign"),
        (10, f"{network}/box_head-BoxHead/fc1-Dense/MatMul-op0", "heads"),
        (11, f"{forward}/sample_rois-RoISampler/match-KernelMatcher/Custom-op0", "heads"),
        (12, f"{forward}/roi_loss-RoILoss/LogSoftmax-op0", "heads"),
        (13, f"Gradients/{network}/box_head-BoxHead/fc1-Dense/Grad_MatMul/MatMul-op0", "backward"),
        (14, "Default/Custom-op1", "backward"),
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
    images, boxes, labels = draw_inputs(2, 96, 160, num_classes=4)
    assert np.array_equal(images, noise) and np.allclose(boxes[0, :, :2], first_corners)
    assert labels.tolist() == [0, 1, 2, 3, 0, 1]
    cfg = parse_train_args(["-o", "data.target_size=[96,160]"])
    pixels, valid_size, padded, padded_labels, mask = (column.asnumpy() for column in noise_batch(cfg, 4)[:5])
    assert pixels.shape == (2, 96, 160, 3) and pixels.dtype == np.uint8
    assert pixels[1, 5, 7, 2] == np.clip(np.round(255 * images[1, 2, 5, 7]), 0, 255)
    assert valid_size.tolist() == [[96, 160]] * 2
    assert padding_size(cfg) == padded.shape[1] == 160
    assert np.array_equal(padded[:, :6], boxes) and not padded[:, 6:].any()
    assert mask.sum(axis=1).tolist() == [6, 6] and padded_labels[1, 5:8].tolist() == [1, -1, -1]
