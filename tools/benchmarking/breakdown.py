"""Where the time of a training step goes, by MindSpore's profiler."""
import contextlib
import csv
import io
import tempfile
from pathlib import Path

from mindspore.profiler import ProfilerActivity, profile, tensorboard_trace_handler

# Attributes that hold the cells of TrainingForward and Update: a step's operators carry their names. The first stage is backbone,
# pyramid and the RPN's head on every cell. With RoIAlign come the patches around sampled anchors, a tenth of it.
PART_OF_CELL = {
    "preprocess": "preprocess", "first_stage": "first stage", "anchor_head": "RPN", "rpn_loss": "RPN", "sample_anchors": "RPN",
    "propose": "proposals", "roi_align": "RoIAlign", "features": "RoIAlign", "box_head": "heads", "roi_loss": "heads",
    "sample_rois": "heads", "optimizer": "optimizer"}
PARTS = ("preprocess", "first stage", "RPN", "proposals", "RoIAlign", "heads", "backward", "optimizer", "other", "all_reduce")
# Cells with a `bprop` of their own: the operators of that carry their names, those of `construct` the name of the caller.
OWN_GRADIENT = ("-_Run", "-KernelRoIAlignPair")


def break_down(step):
    """Run the `RepeatedTrainStep` once more, under the profiler.

    Its table exists on the CPU alone, and names the operators' cells in graph mode alone.

    Returns:
        Dict of seconds by PARTS, and by what else the exchange of several processes tells apart.
    """
    step.all_reduce.take_seconds()  # those of the steps before
    # The profiler speaks of its progress on standard output.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        with profile(activities=[ProfilerActivity.CPU], on_trace_ready=tensorboard_trace_handler(folder)):
            step()
        [path] = Path(folder).glob("*/FRAMEWORK/cpu_op_detail_info_*.csv")
        seconds = seconds_by_part(path)
    return {**seconds, **step.all_reduce.take_seconds()}


def seconds_by_part(path):
    """The profiler's table of operators, a CSV file, as a dict of seconds by PARTS."""
    seconds = dict.fromkeys(PARTS, 0.0)
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            seconds[part_of(row["full_op_name"])] += float(row["op_total_time(ms)"]) / 1000
    return seconds


def part_of(operator):
    """The part of an operator named like Default/forward-TrainingForward/first_stage-KernelFirstStage/.../Custom-op0.

    Some belong to no cell, such as the sums of the overflow check (Expand/_SumExt/ReduceSum-op0): these are "other".
    """
    *cells, name = operator.split("/")
    if cells[0] == "Gradients" or (name.startswith("Custom-") and cells[-1].endswith(OWN_GRADIENT)):
        return "backward"
    names = (cell.partition("-")[0] for cell in cells)
    return next((PART_OF_CELL[cell] for cell in names if cell in PART_OF_CELL), "other")
