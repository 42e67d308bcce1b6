"""--run_profiler True."""
import csv
import json

from tests.helpers.run_files import assert_same_checkpoint, checkpoint, contents


def test_a_few_steps_are_profiled_and_the_weights_are_the_same(workspace, run, uninterrupted):
    folder = workspace / "profiled"
    output = run("train.py", folder, "--mix", "False", "--run_profilor", "True", epochs=2)
    assert f"steps 3 to 7 of this run are profiled in {folder / 'profiler'}" in output
    [trace] = (folder / "profiler").glob("*/ASCEND_PROFILER_OUTPUT/trace_view.json")
    assert len(json.loads(trace.read_text())) > 100
    [table] = (folder / "profiler").glob("*/FRAMEWORK/cpu_op_type_info_0.csv")
    with table.open() as file:
        updates = {row["op_type"]: int(row["type_occurrences"]) for row in csv.DictReader(file)}["ApplyMomentum"]
    # One per step and weight.
    assert updates == 5 * sum(name.startswith("moments.") for name in contents(checkpoint(folder, "epoch2_rank0")))
    assert_same_checkpoint(checkpoint(folder, "epoch2_rank0"), checkpoint(uninterrupted, "epoch2_rank0"))
