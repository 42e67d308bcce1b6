"""Where the time of a training step goes, by MindSpore's profiler."""
from __future__ import annotations

import contextlib
import csv
import io
import tempfile
from collections import Counter
from pathlib import Path

from mindspore.profiler import ProfilerActivity, profile, tensorboard_trace_handler

from tools.benchmarking.steps import TrainingStep

# Attributes of TrainingForward, FasterRCNN and Update that hold their cells, whose names are part of the operators' names.
# RoIAlign includes the patches around sampled anchors, a tenth of its time.
PART_OF_CELL = {
    "preprocess": "preprocess", "backbone": "backbone", "fpn": "FPN", "rpn_head": "RPN", "rpn_loss": "RPN",
    "sample_anchors": "RPN", "propose": "proposals", "roi_align": "RoIAlign", "features": "RoIAlign", "box_head": "heads",
    "roi_loss": "heads", "sample_rois": "heads", "optimizer": "optimizer"}
PARTS = ("preprocess", "backbone", "FPN", "RPN", "proposals", "RoIAlign", "heads", "backward", "optimizer", "other", "all_reduce")


def break_down(step: TrainingStep) -> dict[str, float]:
    """Run a step once more, under the profiler; returns seconds by PARTS, and by the parts of the all-reduce.

    The profiler's table exists on the CPU only, and names the operators' cells in graph mode only.
    """
    step.all_reduce.take_seconds()  # those of the steps before
    # The profiler prints its progress on standard output.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        with profile(activities=[ProfilerActivity.CPU], on_trace_ready=tensorboard_trace_handler(folder)):
            step()
        [path] = Path(folder).glob("*/FRAMEWORK/cpu_op_detail_info_*.csv")
        seconds = seconds_by_part(path)
    return {**seconds, **step.all_reduce.take_seconds()}


def seconds_by_part(path: str | Path) -> dict[str, float]:
    """Seconds by PARTS in the profiler's table of operators, a CSV file."""
    milliseconds = Counter()
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            milliseconds[part_of(row["full_op_name"])] += float(row["op_total_time(ms)"])
    return {part: milliseconds[part] / 1000 for part in PARTS}


def part_of(operator: str) -> str:
    """The part of an operator with a name like Default/forward-TrainingForward/network-FasterRCNN/fpn-FPN/.../Conv2D-op0.

    Some belong to no cell. The largest of them are the gradient of RoIAlign's kernel (Default/Custom-op0, the name of
    operators in a cell's own `bprop`), and the bias gradients of the convolution kernel, which cannot be distinguished from
    the sums of the overflow check (Expand/_SumExt/ReduceSum-op0): these are "other", 1% of R50-FPN's step at 768x1280.
    """
    if operator.startswith(("Gradients/", "Default/Custom-")):
        return "backward"
    cells = (name.partition("-")[0] for name in operator.split("/"))
    return next((PART_OF_CELL[cell] for cell in cells if cell in PART_OF_CELL), "other")
