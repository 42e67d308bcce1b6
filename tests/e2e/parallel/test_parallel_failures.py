"""If one of several processes fails, all exit at once with its message. If one gets a signal, all exit and save the step."""
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from src.checkpoint import read_checkpoint
from tests.helpers.launching import PATIENCE, launch, wait_for, wait_for_end
from tests.helpers.paths import ROOT


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(("how", "message"), [
    ("user", "error: the disk of rank 1 is full; make room."),
    ("defect", "ZeroDivisionError: a defect on rank 1"),
    ("kill", "signal 9"),
])
def test_one_rank_fails_while_the_others_wait(how, message):
    done = subprocess.run(launch(3, "tests/programs/one_fails.py", how), cwd=ROOT, capture_output=True, text=True,
                          timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode != 0 and message in done.stdout + done.stderr


def ranks_of(program, script):
    """Return the processes of a running mpirun that run the script, by rank."""
    ranks = [process for process in program.children(recursive=True)
             if "OMPI_COMM_WORLD_RANK" in process.environ() and script in " ".join(process.cmdline()[:3])
             and process.parent().environ().get("OMPI_COMM_WORLD_RANK") is None]
    return sorted(ranks, key=lambda process: int(process.environ()["OMPI_COMM_WORLD_RANK"]))


def kill_one(command, script, rank, log, sign):
    """Run the command and kill -9 one rank once the log contains `sign`; returns the exit status and the seconds until then."""
    with open(log, "w") as output:
        program = psutil.Popen([str(word) for word in command], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    wait_for(sign, program, log)
    family = program.children(recursive=True)
    ranks_of(program, script)[rank].send_signal(signal.SIGKILL)
    started = time.monotonic()
    return wait_for_end(program, family), time.monotonic() - started


def test_rank_0_is_killed_in_training(config, workspace):
    command = launch(2, "train.py", "--config", config, "--save_dir", workspace / "killed", "-o", "epochs=1000")
    status, seconds = kill_one(command, "train.py", 0, workspace / "train.log", "epoch 1/1000 step 2/2")
    assert status != 0 and seconds < PATIENCE


def test_rank_1_is_killed_in_evaluation(config, workspace, trained):
    # Compilation lasts long enough to kill the rank during it.
    command = launch(2, "eval.py", "--config", config, "--save_dir", workspace / "eval_killed", "--compile_cache", "",
                     "--checkpoint_path", trained[1] / "checkpoint" / "FasterRCNN_det_resnet18_epoch1_rank0.ckpt")
    status, seconds = kill_one(command, "eval.py", 1, workspace / "eval.log", "evaluating")
    assert status != 0 and seconds < PATIENCE


@pytest.mark.parametrize("ranks", [[1], [0, 1]], ids=["one rank", "all ranks"])
def test_a_signal_saves_the_step(config, workspace, ranks):
    folder, log = workspace / f"signal_to_{len(ranks)}", workspace / f"signal_to_{len(ranks)}.log"
    mpirun, *words = launch(2, "train.py", "--config", config, "--save_dir", folder, "-o", "epochs=1000", "batch_size=1")
    with open(log, "w") as output:  # a rank bound to one processor would have no NumPy threads
        program = psutil.Popen([mpirun, "--bind-to", "none", *words], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    wait_for("epoch 1/1000 step 1/4", program, log)
    processes = ranks_of(program, "train.py")
    for rank in ranks:
        processes[rank].terminate()
    assert wait_for_end(program, processes) == 143
    done = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["global_step"]
    saved = [line.split(" saved ")[1] for line in log.read_text().splitlines() if " saved " in line]
    assert read_checkpoint(saved[-1]).progress["global_step"] == done


def test_ranks_that_disagree(config, workspace):
    one = [sys.executable, "eval.py", "--config", config, "--checkpoint_path", "none", "--save_dir", workspace / "out"]
    words = [*launch(1)[:-1], *one, ":", "-n", "1", *one, "-o", "infer.max_box_num=7"]
    done = subprocess.run([str(word) for word in words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "has another configuration than rank 0" in done.stdout + done.stderr


def test_a_single_process_imports_no_mpi():
    program = ("import sys\nimport train\nfrom src.run.launch import run\n"
               "run(lambda _, group, __: print(group.size, 'mpi4py' in sys.modules), lambda: None)")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "1 False", done.stderr
