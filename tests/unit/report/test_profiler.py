"""src/report/profiler.py with MindSpore's profiler, on steps of one operator."""
import contextlib
import csv
import logging

import pytest
from mindspore import Tensor, ops

from src.report.profiler import profiled


def step(number, bad):
    ops.square(Tensor([1.0])).asnumpy()
    if number == bad:
        raise ArithmeticError


@pytest.mark.parametrize(("steps", "bad", "last"), [(2, None, None), (4, None, 4), (6, 5, 5)])
def test_a_run_of_a_few_steps_or_with_an_error_stops_its_profile(tmp_path, caplog, steps, bad, last):
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    with pytest.raises(ArithmeticError) if bad else contextlib.nullcontext(), profiled(step, str(tmp_path), "CPU") as run:
        for number in range(1, steps + 1):
            run(number, bad)
    assert [record.getMessage() for record in caplog.records if record.name == "faster_rcnn"] == [
        f"steps 3 to {last} of this run are profiled in {tmp_path}" if last
        else "nothing was profiled: the run had fewer than 3 steps"]
    counts = []
    for table in tmp_path.glob("*/FRAMEWORK/cpu_op_type_info_0.csv"):
        with table.open() as file:
            counts += [int(row["type_occurrences"]) for row in csv.DictReader(file) if row["op_type"] == "Square"]
    assert counts == ([last - 2] if last else [])
