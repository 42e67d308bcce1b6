"""MindSpore's launcher msrun, and rank tables, can start everything that mpirun starts."""
import contextlib
import json
import signal
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.e2e.parallel.conftest import assert_last_step_is_saved
from tests.helpers.run_files import contents, results
from tests.helpers.scripts import assert_all_end, free_port, msrun, start_logged, wait_for, wait_for_end, wait_until


def begin(save_dir, *words):
    """Start a program with `save_dir` as two processes of msrun; returns the launcher and the path of its output."""
    save_dir.mkdir(exist_ok=True)
    log = save_dir / "output.log"
    return start_logged(log, msrun(2, save_dir / "logs", *words, "--save_dir", save_dir)), log


def assert_same_training(folder, checkpoint):
    """Check that a training in `folder` has the same weights, momenta and scores as the run of mpirun."""
    found, expected = map(contents, (folder / "checkpoint" / checkpoint.name, checkpoint))
    assert len(expected) > 100 and found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-6, err_msg=name)
    for name in ("bbox_results.json", "metrics.json"):
        assert (folder / "eval" / name).read_text() == (checkpoint.parents[1] / "eval" / name).read_text()


def test_training_and_evaluation_give_what_they_give_under_mpirun(config, checkpoint, alone, tmp_path):
    """They run at the same time, because msrun waits half of the time."""
    training, evaluation = (begin(tmp_path / words[0], *words, "--config", config) for words in (
        ["train.py", "--run_eval", "True", "-o", "epochs=1"], ["eval.py", "--checkpoint_path", checkpoint]))
    for program, log in (training, evaluation):
        assert program.wait(timeout=300) == 0, log.read_text()[-6000:]
    assert_same_training(tmp_path / "train.py", checkpoint)
    assert training[1].read_text().count("epoch 1/1 step 1/2") == 1
    for name in ("bbox_results.json", "metrics.json"):
        assert (results(tmp_path / "eval.py") / name).read_bytes() == (alone / name).read_bytes()


def test_the_all_reduce_of_devices_gives_means_of_losses_and_gradients(tmp_path):
    """The all-reduce runs in the graph, and the CPU replaces the devices; see tests/programs/agreement.py."""
    log = tmp_path / "output.log"
    program = start_logged(log, msrun(2, tmp_path / "logs", "tests/programs/agreement.py", "GPU"))
    assert program.wait(timeout=300) == 0 and all(f"rank {rank} agrees" in log.read_text() for rank in range(2)), log.read_text()


def test_the_processes_of_a_rank_table_train_together(config, checkpoint, tmp_path):
    """ModelArts starts the program once per card. Rank 0 starts the scheduler that connects them, which exits with them.
    FASTER_RCNN_PORT sets the port at which rank 0 communicates."""
    table, logs = tmp_path / "hccl.json", [tmp_path / f"{i}.log" for i in range(2)]
    cards = [{"device_id": str(i), "device_ip": f"192.1.27.{i}", "rank_id": str(i)} for i in range(2)]
    table.write_text(json.dumps({"version": "1.0", "server_count": "1", "status": "completed",
                                 "server_list": [{"server_id": "10.155.111.140", "device": cards}]}))
    port = free_port()
    variables = {"RANK_TABLE_FILE": str(table), "RANK_SIZE": "2", "MS_SCHED_PORT": str(free_port()),
                 "FASTER_RCNN_PORT": str(port)}
    words = ["train.py", "--config", config, "--save_dir", tmp_path / "out", "--run_eval", "True", "-o", "epochs=1"]
    ranks = [start_logged(log, [sys.executable, *words], {**variables, "RANK_ID": str(i), "ASCEND_DEVICE_ID": str(i)})
             for i, log in enumerate(logs)]
    schedulers = []

    def find_scheduler():
        for child in ranks[0].children():
            with contextlib.suppress(psutil.Error):  # another child process, which has exited
                schedulers.extend([child] * (child.environ().get("MS_ROLE") == "MS_SCHED"))
        return schedulers

    wait_until(find_scheduler, ranks[0], logs[0])
    wait_until(lambda: port in [own.raddr.port for own in ranks[1].net_connections() if own.raddr], ranks[1], logs[1])
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0], [log.read_text()[-4000:] for log in logs]
    assert_all_end(schedulers)
    assert_same_training(tmp_path / "out", checkpoint)
    assert [log.read_text().count("epoch 1/1 step 1/2") for log in logs] == [1, 0]


@pytest.mark.parametrize(("receiver", "number"), [
    ("ranks", signal.SIGTERM), ("rank 1", signal.SIGKILL), ("msrun", signal.SIGTERM), ("msrun", signal.SIGKILL)])
def test_a_signal_ends_all_processes(config, tmp_path, receiver, number):
    """The processes save the last step unless one was killed. "ranks" are all processes that run the script."""
    program, log = begin(tmp_path, "train.py", "--config", config, "-o", "epochs=1000", "batch_size=1")
    wait_for("epoch 1/1000 step 1/4", program, log)
    family = program.children(recursive=True)
    # docs/devices.md sends SIGTERM to the processes that run the script.
    script = [process for process in program.children() if process.cmdline()[:2] == ["python", "train.py"]]
    roles = [(process.environ()["MS_ROLE"], process.environ().get("MS_NODE_ID")) for process in script]
    assert sorted(roles) == [("MS_SCHED", None), ("MS_WORKER", "0"), ("MS_WORKER", "1")]
    for process, (_, rank) in zip(script, roles):
        # With this thread, operators outside of graphs would wait in loops; `set_up_device` must avoid it.
        assert "backend_queue" not in {path.read_text().strip() for path in Path("/proc").glob(f"{process.pid}/task/*/comm")}
        if receiver in ("ranks", f"rank {rank}"):
            process.send_signal(number)
    if receiver == "msrun":
        program.send_signal(number)
        for process in set(family) - set(script):  # `tail`, with which msrun shows the output of the ranks
            process.kill()
        family = script
    assert wait_for_end(program, family) != 0
    if receiver != "rank 1":
        assert_last_step_is_saved(tmp_path, (tmp_path / "logs" / "worker_0.log").read_text())
