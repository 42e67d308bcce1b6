"""Break down the time of a training step by parts of the detector, with MindSpore's profiler."""
import contextlib
import csv
import io
import tempfile
from pathlib import Path

from mindspore.profiler import ProfilerActivity, profile, tensorboard_trace_handler

# Attributes of TrainingForward and Update that hold cells; the names of operators contain them. The first stage is the backbone,
# the pyramid and the RPN head on every cell. RoIAlign includes the patches around sampled anchors, a tenth of its time.
PART_OF_CELL = {
    "preprocess": "preprocess", "features_and_rpn": "first stage", "anchor_head": "RPN", "rpn_loss": "RPN",
    "sample_anchors": "RPN",
    "propose": "proposals", "roi_align": "RoIAlign", "features": "RoIAlign", "box_head": "heads", "roi_loss": "heads",
    "sample_rois": "heads", "optimizer": "optimizer"}
PARTS = ("preprocess", "first stage", "RPN", "proposals", "RoIAlign", "heads", "backward", "optimizer", "other", "all_reduce")
# Cells that define `bprop`. Operators of `bprop` have these names; operators of `construct` have the name of the caller.
OWN_GRADIENT = ("-_Run", "-KernelRoIAlignPair")


def break_down(step):
    """Run the `RepeatedTrainStep` once more, with the profiler.

    The profiler writes its table only on the CPU. The table contains the names of cells only in graph mode.

    Returns:
        Dict of seconds by PARTS and, with several processes, by the parts of the all-reduce.
    """
    step.all_reduce.take_seconds()  # discard the seconds of earlier steps
    # The profiler prints its progress on standard output.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        with profile(activities=[ProfilerActivity.CPU], on_trace_ready=tensorboard_trace_handler(folder)):
            step()
        [path] = Path(folder).glob("*/FRAMEWORK/cpu_op_detail_info_*.csv")
        seconds = seconds_by_part(path)
    return {**seconds, **step.all_reduce.take_seconds()}


def seconds_by_part(path):
    """Read the profiler's table of operators, a CSV file; returns a dict of seconds by PARTS."""
    seconds = dict.fromkeys(PARTS, 0.0)
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            seconds[part_of(row["full_op_name"])] += float(row["op_total_time(ms)"]) / 1000
    return seconds


def part_of(operator):
    """Return the part of an operator, named like Default/forward-TrainingForward/roi_align-RoIAlign/.../Custom-op0.

    Operators outside of cells, such as the sums of the overflow check (Expand/_SumExt/ReduceSum-op0), belong to "other".
    """
    *cells, name = operator.split("/")
    if cells[0] == "Gradients" or (name.startswith("Custom-") and cells[-1].endswith(OWN_GRADIENT)):
        return "backward"
    names = (cell.partition("-")[0] for cell in cells)
    return next((PART_OF_CELL[cell] for cell in names if cell in PART_OF_CELL), "other")
