"""MindSpore's launcher msrun can start everything that mpirun starts."""
import contextlib
import json
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from src.checkpoint import read_checkpoint
from tests.helpers.launching import MSRUN_ENVIRONMENT, free_port, msrun, wait_for, wait_for_end
from tests.helpers.paths import ROOT
from tests.helpers.scripts import has_ended, start_script

NAME = "FasterRCNN_det_resnet18"


def start(save_dir, *words):
    """Start a program with `save_dir` as two processes of msrun; returns the launcher and the path of its output."""
    log = save_dir / "output.log"
    save_dir.mkdir(exist_ok=True)
    with open(log, "w") as output:
        return psutil.Popen(msrun(2, save_dir / "logs", *words, "--save_dir", save_dir), cwd=ROOT, env=MSRUN_ENVIRONMENT,
                            stdout=output, stderr=subprocess.STDOUT), log


def ranks_and_scheduler(program):
    """Return the processes that run the script. docs/devices.md sends SIGTERM to them."""
    return [process for process in program.children() if process.cmdline()[:2] == ["python", "train.py"]]


@pytest.fixture(scope="module")
def whole_runs(config, trained, tmp_path_factory):
    """The folders of a training and an evaluation, run at the same time because msrun waits half of the time."""
    checkpoint = trained[1] / "checkpoint" / f"{NAME}_epoch1_rank0.ckpt"
    commands = {"training": ["train.py", "--config", config, "--run_eval", "True", "-o", "epochs=1"],
                "evaluation": ["eval.py", "--config", config, "--checkpoint_path", checkpoint]}
    folders = {name: tmp_path_factory.mktemp(name) for name in commands}
    for program, log in [start(folders[name], *words) for name, words in commands.items()]:
        assert program.wait(timeout=300) == 0, log.read_text()[-6000:]
    return folders


def assert_same_training(folder, trained):
    """Check that a training in `folder` has the same weights, momenta and scores as the run of mpirun."""
    found, expected = (read_checkpoint(str(path / "checkpoint" / f"{NAME}_epoch1_rank0.ckpt")) for path in (folder, trained[1]))
    assert len(expected.weights) > 100 and found.weights.keys() == expected.weights.keys()
    for part in ("weights", "moments"):
        for name, array in getattr(expected, part).items():
            np.testing.assert_allclose(getattr(found, part)[name], array, rtol=0, atol=1e-6, err_msg=name)
    for name in ("bbox_results.json", "metrics.json"):
        assert (folder / "eval" / name).read_text() == (trained[1] / "eval" / name).read_text()


def test_training_gives_the_weights_that_it_gives_under_mpirun(whole_runs, trained):
    folder = whole_runs["training"]
    assert_same_training(folder, trained)
    assert (folder / "output.log").read_text().count("epoch 1/1 step 1/2") == 1


def test_an_evaluation_writes_the_results_file_of_one_process(whole_runs, alone):
    found, expected = ((folder / "bbox_results.json").read_text() for folder in (whole_runs["evaluation"] / "eval", alone[1]))
    assert found == expected and len({row["image_id"] for row in json.loads(found)}) > 5


def agree(text):
    return all(f"rank {rank} agrees" in text for rank in range(2))


def test_the_all_reduce_of_devices_gives_means_of_losses_and_gradients(tmp_path):
    """The all-reduce runs in the graph, and the CPU replaces the devices; see tests/programs/agreement.py."""
    done = subprocess.run(msrun(2, tmp_path / "logs", "tests/programs/agreement.py", "GPU"), cwd=ROOT, stdout=subprocess.PIPE,
                          env={**MSRUN_ENVIRONMENT, "PYTHONPATH": str(ROOT)}, stderr=subprocess.STDOUT, text=True, timeout=300)
    assert done.returncode == 0 and agree(done.stdout), done.stdout[-6000:]


def find_scheduler(rank_0, log):
    """Return the process that rank 0 of a rank table starts to connect the ranks."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in rank_0.children():
            with contextlib.suppress(psutil.Error):  # another child process, which has exited
                if child.environ().get("MS_ROLE") == "MS_SCHED":
                    return child
        assert rank_0.poll() is None, log.read_text()[-4000:]
        time.sleep(0.1)
    pytest.fail("rank 0 has started no scheduler within 60 s: " + log.read_text()[-4000:])


def test_the_processes_of_a_rank_table_train_together(config, trained, tmp_path):
    """ModelArts starts the program once per card. The process that connects them exits with them."""
    table, words = tmp_path / "hccl.json", ["train.py", "--config", config, "--save_dir", tmp_path / "out", "--run_eval", "True"]
    cards = [{"device_id": str(i), "device_ip": f"192.1.27.{i}", "rank_id": str(i)} for i in range(2)]
    table.write_text(json.dumps({"version": "1.0", "server_count": "1", "status": "completed",
                                 "server_list": [{"server_id": "10.155.111.140", "device": cards}]}))
    variables = {"RANK_TABLE_FILE": str(table), "RANK_SIZE": "2", "MS_SCHED_PORT": str(free_port())}
    logs = [tmp_path / f"{i}.log" for i in range(2)]
    ranks = [start_script(log, *words, "-o", "epochs=1",
                          environment={**variables, "RANK_ID": str(i), "ASCEND_DEVICE_ID": str(i)})
             for i, log in enumerate(logs)]
    scheduler = find_scheduler(ranks[0], logs[0])
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0], [log.read_text()[-4000:] for log in logs]
    assert_same_training(tmp_path / "out", trained)
    assert [log.read_text().count("epoch 1/1 step 1/2") for log in logs] == [1, 0]
    deadline = time.monotonic() + 60
    while not has_ended(scheduler.pid):
        assert time.monotonic() < deadline, "the scheduler has not ended within 60 s"
        time.sleep(0.1)


def end_while_training(config, folder, name, number, sign):
    """Start a training and send the signal `number` once the output contains `sign`; all its processes must exit.

    Returns the output of rank 0.

    Args:
            name: receiver of the signal: "ranks", all processes that run the script; "rank 1"; or "msrun".
    """
    program, log = start(folder, "train.py", "--config", config, "-o", "epochs=1000", "batch_size=1")
    wait_for(sign, program, log)
    family, script = program.children(recursive=True), ranks_and_scheduler(program)
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
    """Outputs and folders of two trainings, for cases of `end_while_training`. They run at the same time, because each spends
    most of the time waiting for a process to exit."""
    folders = [tmp_path / str(number) for number in range(len(cases))]
    with ThreadPoolExecutor() as pool:
        return list(zip(pool.map(end_while_training, [config] * len(cases), folders, *zip(*cases)), folders))


def assert_saved(log, folder):
    """Check that the last checkpoint is that of the last step."""
    saved = [line.split(" saved ")[1] for line in log.splitlines() if " saved " in line]
    done = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["global_step"]
    assert read_checkpoint(saved[-1]).progress["global_step"] == done


def test_a_signal_ends_all_processes(config, tmp_path):
    terminated, _ = end_two(config, tmp_path, ("ranks", signal.SIGTERM, "epoch 1/1000 step 1/4"),
                            ("rank 1", signal.SIGKILL, "9 training images"))
    assert_saved(*terminated)


def test_the_ranks_save_and_end_when_msrun_ends(config, tmp_path):
    for ended in end_two(config, tmp_path, ("msrun", signal.SIGTERM, "epoch 1/1000 step 1/4"),
                         ("msrun", signal.SIGKILL, "epoch 1/1000 step 1/4")):
        assert_saved(*ended)
