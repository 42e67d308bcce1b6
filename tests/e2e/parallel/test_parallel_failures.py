"""If one of several processes fails, all exit at once with its message. If one gets a signal, all exit and save the step."""
import signal
import sys

import pytest

from tests.e2e.parallel.conftest import assert_last_step_is_saved
from tests.helpers.scripts import mpirun, run_script, start_logged, wait_for, wait_for_end


@pytest.mark.parametrize(("how", "message"), [
    ("user", "error: the disk of rank 1 is full; make room."),
    ("defect", "ZeroDivisionError: a defect"),
])
def test_one_rank_fails_while_the_others_wait(how, message):
    done = run_script("tests/programs/one_fails.py", how, ranks=3, timeout=120)
    assert done.returncode != 0 and message in done.stdout + done.stderr


@pytest.fixture
def running(config, tmp_path):
    """A function that starts a script on two ranks, and returns (mpirun, its ranks, its output, its folder) once the output
    contains `sign`."""
    def run_until(sign, script, *words):
        log, folder = tmp_path / "output.log", tmp_path / "out"
        command, *rest = mpirun(2, script, "--config", config, "--save_dir", folder, *words)
        program = start_logged(log, [command, "--bind-to", "none", *rest])  # a rank bound to a processor has no NumPy threads
        wait_for(sign, program, log)
        ranks = [process for process in program.children(recursive=True)
                 if "OMPI_COMM_WORLD_RANK" in process.environ() and script in " ".join(process.cmdline()[:3])
                 and "OMPI_COMM_WORLD_RANK" not in process.parent().environ()]
        return program, sorted(ranks, key=lambda process: int(process.environ()["OMPI_COMM_WORLD_RANK"])), log, folder
    return run_until


def test_a_rank_is_killed_in_training_or_evaluation(running, checkpoint):
    # Compilation lasts long enough to kill the rank during it.
    for rank, sign, *words in ((0, "epoch 1/1000 step 2/2", "train.py", "-o", "epochs=1000"),
                               (1, "evaluating", "eval.py", "--checkpoint_path", checkpoint, "--ms_mode", "0")):
        program, ranks, _, _ = running(sign, *words)
        family = program.children(recursive=True)
        ranks[rank].kill()
        assert wait_for_end(program, family) != 0


@pytest.mark.parametrize("numbers", [[1], [0, 1]], ids=["one rank", "all ranks"])
def test_a_signal_saves_the_step(running, numbers):
    program, ranks, log, folder = running("epoch 1/1000 step 1/4", "train.py", "-o", "epochs=1000", "batch_size=1")
    for number in numbers:
        ranks[number].send_signal(signal.SIGTERM)
    assert wait_for_end(program, ranks) == 143
    assert_last_step_is_saved(folder, log.read_text())


def test_ranks_that_disagree(config, workspace):
    one = [sys.executable, "train.py", "--config", config, "--save_dir", workspace / "out"]
    log = workspace / "disagreement.log"
    done = start_logged(log, [*mpirun(1)[:-1], *one, ":", "-n", "1", *one, "-o", "infer.max_box_num=7"])
    assert done.wait(timeout=120) != 0 and "has another configuration than rank 0" in log.read_text()


def test_a_single_process_imports_no_mpi():
    done = run_script("-c", "import sys\nimport train\nfrom src.run.launch import run\n"
                      "run(lambda _, group, __: print(group.size, 'mpi4py' in sys.modules), lambda: None)", timeout=120)
    assert done.stdout.splitlines()[-1] == "1 False", done.stderr
