"""SIGTERM and SIGINT: the step is finished and saved, the exit status is 143 or 130, and a second signal ends the run at once."""
import os
import signal
import time

import pytest

from tests.helpers.run_files import assert_same_checkpoint, checkpoint, read_json, read_lines, wait_until

STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130}


def after_step(program, log, step):
    wait_until(lambda: f" step {step}/6 " in log.read_text(), program, log)


def stop_in_first_epoch(folder, start, number, to_all):
    """Start a run, stop it with a signal; returns how many steps it has saved."""
    program, log = start("train.py", folder, "--mix", "False", "--num_workers", "2", epochs=2)
    after_step(program, log, 2)
    os.killpg(program.pid, number) if to_all else program.send_signal(number)
    assert program.wait(timeout=60) == STATUS[number]
    output = log.read_text()
    assert output.count(f"{signal.Signals(number).name}: training ends after this step") == 1 and "Traceback" not in output
    steps = len(read_lines(folder))
    assert output.splitlines()[-1].endswith("saved " + checkpoint(folder, f"epoch1_step{steps}_rank0"))
    assert 2 <= steps <= 5
    return steps


def test_the_step_is_finished_and_saved_and_the_next_run_goes_on(workspace, start, run, uninterrupted):
    """Also where the signal goes to the processes that read images, too, as from a cluster or a terminal."""
    folder = workspace / "terminated"
    steps = stop_in_first_epoch(folder, start, signal.SIGTERM, to_all=True)
    output = run("train.py", folder, "--mix", "False", "--resume_ckpt", "auto", epochs=2)
    assert f"resuming after epoch 0 and {2 * steps} images" in output
    assert_same_checkpoint(checkpoint(folder, "epoch2_rank0"), checkpoint(uninterrupted, "epoch2_rank0"))
    assert read_lines(folder) == read_lines(uninterrupted)[:12]


def test_ctrl_c(workspace, start):
    stop_in_first_epoch(workspace / "interrupted_by_user", start, signal.SIGINT, to_all=False)


def test_a_second_signal_ends_the_run_at_once(workspace, start):
    folder = workspace / "stopped_twice"
    program, log = start("train.py", folder, "--mix", "False", epochs=10)
    after_step(program, log, 2)
    program.send_signal(signal.SIGSTOP)  # so that no step ends between the two
    program.send_signal(signal.SIGTERM)
    program.send_signal(signal.SIGINT)
    program.send_signal(signal.SIGCONT)
    assert program.wait(timeout=5) in STATUS.values()
    assert list((folder / "checkpoint").glob("*.ckpt")) == []


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_before_there_is_anything_to_save_the_first_signal_ends_the_run_at_once(workspace, start, uninterrupted, script):
    flags = ["--checkpoint_path", checkpoint(uninterrupted, "epoch6_rank0")] if script == "eval.py" else []
    program, log = start(script, workspace / "stopped_early", "--mix", "False", *flags)
    wait_until(lambda: "instruction set" in log.read_text(), program, log)
    program.send_signal(signal.SIGINT)
    assert program.wait(timeout=5) == 130
    assert log.read_text().endswith("ended by SIGINT\n")


def test_an_evaluation_is_broken_off_and_done_again(workspace, start, run, uninterrupted):
    folder = workspace / "stopped_in_evaluation"
    program, log = start("train.py", folder, "--mix", "False", "--run_eval", "True", epochs=1)
    wait_until(lambda: "saved" in log.read_text(), program, log)
    program.send_signal(signal.SIGTERM)
    assert program.wait(timeout=60) == 143
    assert not (folder / "eval" / "metrics.json").exists()
    output = run("train.py", folder, "--mix", "False", "--run_eval", "True", "--resume_ckpt", "auto", epochs=1)
    assert "evaluated 6 of 6 images" in output and "all 1 epochs are done" in output
    assert_same_checkpoint(checkpoint(folder, "epoch1_rank0"), checkpoint(uninterrupted, "epoch1_rank0"),
                           but={"best_ap", "best_epoch", "evaluated"})
    assert_same_checkpoint(checkpoint(folder, "best"), checkpoint(folder, "epoch1_rank0"))
    assert read_json(folder, "eval", "metrics.json")["images"] == 6
    # Once is enough.
    assert "evaluated" not in run("train.py", folder, "--mix", "False", "--run_eval", "True", "--resume_ckpt", "auto", epochs=1)


def test_a_reader_of_images_dies(workspace, start):
    """With worker processes. As when the system has no memory left: the run is saved and ends."""
    folder = workspace / "reader_died"
    program, log = start("train.py", folder, "--mix", "False", "--num_workers", "2", epochs=10, max_rowsize=8)
    after_step(program, log, 3)
    program.children()[0].kill()
    assert program.wait(timeout=60) == 143
    assert len(list((folder / "checkpoint").glob("*.ckpt"))) == 1
    assert "was killed by signal: Killed" in log.read_text()


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_no_process_outlives_a_killed_run(workspace, start, uninterrupted, script):
    flags, sign = ["--num_workers", "2"], " step 3/6 "
    if script == "eval.py":
        flags, sign = [*flags, "--checkpoint_path", os.path.dirname(checkpoint(uninterrupted, "best"))], "COCO numbers"
    program, log = start(script, workspace / "orphans", "--mix", "False", *flags, max_rowsize=8)
    wait_until(lambda: sign in log.read_text() and len(program.children(recursive=True)) >= 3, program, log)
    family = program.children(recursive=True)
    program.kill()
    program.wait()
    deadline = time.monotonic() + 10
    while alive := [each for each in family if each.is_running() and each.status() != "zombie"]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)
