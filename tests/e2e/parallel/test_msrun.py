"""MindSpore's launcher msrun, and rank tables, can start everything that mpirun starts."""
import contextlib
import json
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from src.checkpoint import read_checkpoint
from tests.e2e.parallel.conftest import assert_last_step_is_saved
from tests.helpers.scripts import assert_all_end, free_port, msrun, start, start_script, wait_for, wait_for_end, wait_until


def begin(save_dir, *words):
    """Start a program with `save_dir` as two processes of msrun; returns the launcher and the path of its output."""
    log = save_dir / "output.log"
    save_dir.mkdir(exist_ok=True)
    with open(log, "w") as output:
        return start(msrun(2, save_dir / "logs", *words, "--save_dir", save_dir), stdout=output, stderr=subprocess.STDOUT), log


@pytest.fixture(scope="module")
def whole_runs(config, checkpoint, tmp_path_factory):
    """The folders of a training and an evaluation, run at the same time because msrun waits half of the time."""
    commands = {"training": ["train.py", "--config", config, "--run_eval", "True", "-o", "epochs=1"],
                "evaluation": ["eval.py", "--config", config, "--checkpoint_path", checkpoint]}
    folders = {name: tmp_path_factory.mktemp(name) for name in commands}
    for program, log in [begin(folders[name], *words) for name, words in commands.items()]:
        assert program.wait(timeout=300) == 0, log.read_text()[-6000:]
    return folders


def assert_same_training(folder, checkpoint):
    """Check that a training in `folder` has the same weights, momenta and scores as the run of mpirun."""
    found, expected = (read_checkpoint(str(path)) for path in (folder / "checkpoint" / checkpoint.name, checkpoint))
    assert len(expected.weights) > 100 and found.weights.keys() == expected.weights.keys()
    for part in ("weights", "moments"):
        for name, array in getattr(expected, part).items():
            np.testing.assert_allclose(getattr(found, part)[name], array, rtol=0, atol=1e-6, err_msg=name)
    for name in ("bbox_results.json", "metrics.json"):
        assert (folder / "eval" / name).read_text() == (checkpoint.parents[1] / "eval" / name).read_text()


def test_training_gives_the_weights_that_it_gives_under_mpirun(whole_runs, checkpoint):
    folder = whole_runs["training"]
    assert_same_training(folder, checkpoint)
    assert (folder / "output.log").read_text().count("epoch 1/1 step 1/2") == 1


def test_an_evaluation_writes_the_results_file_of_one_process(whole_runs, alone):
    found, expected = ((folder / "bbox_results.json").read_text() for folder in (whole_runs["evaluation"] / "eval", alone))
    assert found == expected and len({row["image_id"] for row in json.loads(found)}) > 5


def test_the_all_reduce_of_devices_gives_means_of_losses_and_gradients(tmp_path):
    """The all-reduce runs in the graph, and the CPU replaces the devices; see tests/programs/agreement.py."""
    program = start(msrun(2, tmp_path / "logs", "tests/programs/agreement.py", "GPU"), stdout=subprocess.PIPE, text=True,
                    stderr=subprocess.STDOUT)
    output, _ = program.communicate(timeout=300)
    assert program.returncode == 0 and all(f"rank {rank} agrees" in output for rank in range(2)), output[-6000:]


def test_the_processes_of_a_rank_table_train_together(config, checkpoint, tmp_path):
    """ModelArts starts the program once per card. Rank 0 starts the scheduler that connects them, which exits with them."""
    table, logs = tmp_path / "hccl.json", [tmp_path / f"{i}.log" for i in range(2)]
    cards = [{"device_id": str(i), "device_ip": f"192.1.27.{i}", "rank_id": str(i)} for i in range(2)]
    table.write_text(json.dumps({"version": "1.0", "server_count": "1", "status": "completed",
                                 "server_list": [{"server_id": "10.155.111.140", "device": cards}]}))
    variables = {"RANK_TABLE_FILE": str(table), "RANK_SIZE": "2", "MS_SCHED_PORT": str(free_port())}
    ranks = [start_script(log, "train.py", "--config", config, "--save_dir", tmp_path / "out", "--run_eval", "True",
                          "-o", "epochs=1", environment={**variables, "RANK_ID": str(i), "ASCEND_DEVICE_ID": str(i)})
             for i, log in enumerate(logs)]
    schedulers = []

    def find_scheduler():
        for child in ranks[0].children():
            with contextlib.suppress(psutil.Error):  # another child process, which has exited
                schedulers.extend([child] * (child.environ().get("MS_ROLE") == "MS_SCHED"))
        return schedulers

    wait_until(find_scheduler, ranks[0], logs[0])
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0], [log.read_text()[-4000:] for log in logs]
    assert_all_end(schedulers)
    assert_same_training(tmp_path / "out", checkpoint)
    assert [log.read_text().count("epoch 1/1 step 1/2") for log in logs] == [1, 0]


def end_while_training(config, folder, name, number, sign):
    """Start a training and send the signal `number` once the output contains `sign`; all its processes must exit.

    Returns the output of rank 0. `name` is the receiver of the signal: "ranks", all processes that run the script; "rank 1"; or
    "msrun".
    """
    program, log = begin(folder, "train.py", "--config", config, "-o", "epochs=1000", "batch_size=1")
    wait_for(sign, program, log)
    family = program.children(recursive=True)
    # docs/devices.md sends SIGTERM to the processes that run the script.
    script = [process for process in program.children() if process.cmdline()[:2] == ["python", "train.py"]]
    roles = [(process.environ()["MS_ROLE"], process.environ().get("MS_NODE_ID")) for process in script]
    assert sorted(roles) == [("MS_SCHED", None), ("MS_WORKER", "0"), ("MS_WORKER", "1")]
    for process, (_, rank) in zip(script, roles):
        # With this thread, operators outside of graphs would wait in loops; `set_up_device` must avoid it.
        assert "backend_queue" not in {path.read_text().strip() for path in Path("/proc").glob(f"{process.pid}/task/*/comm")}
        if name == "ranks" or name == f"rank {rank}":
            process.send_signal(number)
    if name == "msrun":
        program.send_signal(number)
        for process in set(family) - set(script):  # `tail`, with which msrun shows the output of the ranks
            process.kill()
        family = script
    assert wait_for_end(program, family) != 0
    return (folder / "logs" / "worker_0.log").read_text()


def end_two(config, tmp_path, *cases):
    """Folders and outputs of two trainings, for cases of `end_while_training`. They run at the same time, because each spends
    most of the time waiting for a process to exit."""
    folders = [tmp_path / str(number) for number in range(len(cases))]
    with ThreadPoolExecutor() as pool:
        return list(zip(folders, pool.map(end_while_training, [config] * len(cases), folders, *zip(*cases))))


def test_a_signal_ends_all_processes(config, tmp_path):
    terminated, _ = end_two(config, tmp_path, ("ranks", signal.SIGTERM, "epoch 1/1000 step 1/4"),
                            ("rank 1", signal.SIGKILL, "9 training images"))
    assert_last_step_is_saved(*terminated)


def test_the_ranks_save_and_end_when_msrun_ends(config, tmp_path):
    for ended in end_two(config, tmp_path, ("msrun", signal.SIGTERM, "epoch 1/1000 step 1/4"),
                         ("msrun", signal.SIGKILL, "epoch 1/1000 step 1/4")):
        assert_last_step_is_saved(*ended)
