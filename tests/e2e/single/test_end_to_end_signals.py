"""SIGTERM and SIGINT: the run finishes and saves the step and exits with status 143 or 130; a later signal ends it at once.

Each run that gets a signal is a new process on all processors. NumPy's threads must not block the signals, and NumPy only
starts threads on two or more processors.
"""
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers.run_files import assert_same_checkpoint, checkpoint, contents, read_json, read_lines
from tests.helpers.scripts import PATIENCE, assert_all_end, wait_for, wait_until

ASKED = "training ends after this step"
TRAIN = ["--mix", "False"]
# A module that Python imports at start-up. The matrix product makes NumPy's library start a thread.
SITECUSTOMIZE = """
import os
import numpy as np
np.ones((500, 500)) @ np.ones((500, 500))
with open(os.environ["THREADS"], "a") as file:
    print(len(os.listdir("/proc/self/task")), file=file)
"""


def assert_saved(folder, log, program, number):
    """Check that the run exits with the status of signal `number` after one request, and that its last line names the checkpoint
    of its last step."""
    assert program.wait(timeout=60) == 128 + number, log.read_text()
    output = log.read_text().replace("\r", "")
    assert output.count(f"{signal.Signals(number).name}: {ASKED}") == 1 and "Traceback" not in output
    done = read_lines(folder)[-1]["global_step"]
    path = output.splitlines()[-1].partition(" saved ")[2]
    assert 2 <= done < 36 and contents(path)["global_step"] == done


def test_the_step_is_finished_and_saved_and_the_next_run_goes_on(workspace, start, run, uninterrupted, tmp_path):
    """GNU timeout sends a signal to the program and then to its group, which includes the processes that read images. A
    sitecustomize.py starts a NumPy thread, so the program restarts itself once."""
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    folder, threads = workspace / "terminated", tmp_path / "threads"
    variables = {"PYTHONPATH": str(tmp_path), "OPENBLAS_NUM_THREADS": "2", "THREADS": str(threads)}
    program, log = start("train.py", folder, *TRAIN, "--num_workers", "2", before=["timeout", "1000"],
                         options={"environment": variables}, epochs=6, max_rowsize=8)
    wait_for(" step 2/6 ", program, log)
    assert threads.read_text() == "2\n2\n"
    program.send_signal(signal.SIGTERM)
    assert_saved(folder, log, program, signal.SIGTERM)

    # A terminal sends SIGINT to the whole group.
    program, log = start("train.py", folder, *TRAIN, "--resume_ckpt", "auto", "--num_workers", "2", epochs=6, max_rowsize=8)
    wait_for(" step 3/6 ", program, log)
    os.killpg(program.pid, signal.SIGINT)
    assert_saved(folder, log, program, signal.SIGINT)
    assert "resuming after epoch" in run("train.py", folder, *TRAIN, "--resume_ckpt", "auto", epochs=6)
    assert_same_checkpoint(checkpoint(folder, "epoch6_rank0"), checkpoint(uninterrupted, "epoch6_rank0"))
    assert read_lines(folder) == read_lines(uninterrupted)


def test_the_first_process_of_a_container(workspace, start):
    """Linux ignores signals to process 1 of a container if it has no handler. `docker stop` sends such a signal."""
    words = ["unshare", *["--user", "--map-root-user"] * (os.geteuid() > 0), "--pid", "--fork", "--mount-proc", "--kill-child"]
    if not shutil.which("unshare") or subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("unshare --pid is not permitted here")
    folder = workspace / "container"
    program, log = start("train.py", folder, *TRAIN, before=words, epochs=6)
    wait_for(" step 2/6 ", program, log)
    program.children()[0].send_signal(signal.SIGTERM)
    assert_saved(folder, log, program, signal.SIGTERM)


def waits_for_a_lock(program):
    """Return whether the system lists the process as waiting for a file lock."""
    return any(f" {program.pid} " in line for line in Path("/proc/locks").read_text().splitlines() if "->" in line)


def test_while_another_run_compiles(workspace, start):
    """The other run is suspended while it holds the lock. A run that waits for the lock exits some time after a signal, which may
    come twice, and at once after a later signal."""
    cache = workspace / "locked"
    holder, log = start("train.py", workspace / "holder", *TRAIN, "--compile_cache", cache)
    wait_until(lambda: list(cache.glob("*/lock")), holder, log)
    holder.suspend()
    ends = {"patient": "the run has waited or evaluated for 20 s: it ends with its last checkpoint\n",
            "impatient": "ended by SIGTERM\n"}
    runs = {name: start("train.py", workspace / name, *TRAIN, "--compile_cache", cache) for name in ends}
    for program, log in runs.values():
        wait_until(lambda program=program: waits_for_a_lock(program), program, log)
        program.suspend()  # so that both signals arrive together: two SIGTERM would merge into one
        program.send_signal(signal.SIGTERM)
        program.send_signal(signal.SIGINT)
        program.resume()
        wait_for(ASKED, program, log)
    time.sleep(3)  # longer than the time in which signals are treated as one
    runs["impatient"][0].send_signal(signal.SIGTERM)
    for name, (program, log) in runs.items():
        assert program.wait(timeout=60) in (130, 143) and log.read_text().endswith(ends[name])
    assert not list(workspace.glob("*patient/checkpoint/*.ckpt"))


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_before_there_is_anything_to_save_the_first_signal_ends_the_run_at_once(workspace, start, uninterrupted, script):
    flags = ["--checkpoint_path", checkpoint(uninterrupted, "epoch6_rank0")] if script == "eval.py" else []
    program, log = start(script, workspace / "stopped_early", *TRAIN, *flags)
    wait_for("instruction set", program, log)
    program.send_signal(signal.SIGINT)
    assert program.wait(timeout=PATIENCE) == 130
    assert log.read_text().endswith("ended by SIGINT\n")


def test_an_evaluation_is_broken_off_and_done_again(workspace, start, run, uninterrupted):
    folder, flags = workspace / "stopped_in_evaluation", [*TRAIN, "--run_eval", "True"]
    program, log = start("train.py", folder, *flags, epochs=1)
    wait_for("saved", program, log)
    program.send_signal(signal.SIGTERM)
    assert program.wait(timeout=60) == 143
    assert not (folder / "eval" / "metrics.json").exists()
    output = run("train.py", folder, *flags, "--resume_ckpt", "auto", epochs=1)
    assert "evaluated 6 of 6 images" in output and "all 1 epochs are done" in output
    assert_same_checkpoint(checkpoint(folder, "epoch1_rank0"), checkpoint(uninterrupted, "epoch1_rank0"),
                           but={"best_ap", "best_epoch", "evaluated"})
    assert_same_checkpoint(checkpoint(folder, "best"), checkpoint(folder, "epoch1_rank0"))
    assert read_json(folder, "eval", "metrics.json")["images"] == 6
    assert "evaluated" not in run("train.py", folder, *flags, "--resume_ckpt", "auto", epochs=1)


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_no_process_outlives_a_killed_run_or_keeps_its_folder(workspace, start, run, uninterrupted, script):
    """The next run may use the folder even if the suspended processes that read images have not noticed the kill yet."""
    flags, sign = [*TRAIN, "--num_workers", "2"], " step 3/6 "
    if script == "eval.py":
        flags, sign = [*flags, "--checkpoint_path", os.path.dirname(checkpoint(uninterrupted, "best"))], "COCO numbers"
    folder = workspace / "orphans"
    program, log = start(script, folder, *flags, max_rowsize=8)
    wait_until(lambda: sign in log.read_text() and len(program.children(recursive=True)) >= 3, program, log)
    family = program.children(recursive=True)
    for process in family:
        process.suspend()
    program.kill()
    program.wait()
    run(script, folder, *flags, epochs=1, max_rowsize=8)
    for process in family:
        process.resume()
    assert_all_end(family)
