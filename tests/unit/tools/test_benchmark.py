"""tools/benchmark.py: what it refuses, how it sums operators by part, and its batch."""
import numpy as np
import pytest

from src.config.command_line import parse_train_args
from tools import benchmark
from tools.benchmarking.breakdown import PARTS, seconds_by_part
from tools.benchmarking.inputs import draw_inputs, noise_batch, padding_size


@pytest.mark.parametrize(("flags", "sentence"), [
    (["--what", "train,evaluate"], "--what must be some of train,predict,data, not 'evaluate'"),
    (["--steps", "0"], "--steps must be a whole number of at least 1, not '0'"),
    (["--height", "0"], "--height must be a whole number of at least 1, not '0'"),
    (["--width", "wide"], "--width must be a whole number of at least 1, not 'wide'"),
    (["--batch", "0"], "--batch_size: batch_size must be at least 1, not 0"),
    (["--json", "file/results.json"], "cannot create the folder file (File exists); give file/results.json another path."),
])
def test_what_is_refused(run_tool, flags, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    assert run_tool(benchmark, *flags) == (1, "", f"error: {sentence}\n")


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
