"""Start the project's scripts in new processes, as a user does: alone, or several of them with mpirun or msrun."""
import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from src.run.environment import DEFAULTS
from tests.helpers.paths import ROOT
from tests.helpers.skipping import skip_or_fail

PATIENCE = 30  # seconds within which all processes of a run must exit
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # msrun starts the first `python` in PATH
MPIRUN = shutil.which("mpirun", path=PATH)
# A user's environment, before tests/conftest.py sets the variables that the scripts set themselves.
USER_ENVIRONMENT = {**{name: value for name, value in os.environ.items() if DEFAULTS.get(name) != value}, "PATH": PATH}
STARTED = []  # processes that tests have started and that may still run


def link_project(folder):
    """Put links to the programs, the tools and the configuration files into `folder`."""
    for name in ("config", "src", "tools", "deploy", "train.py", "eval.py", "infer.py", "export.py"):
        (folder / name).symlink_to(ROOT / name)


def mpirun(ranks, *words):
    """Return the command that starts `words`, a Python program and its arguments, as several processes. Without mpirun, the test
    is skipped."""
    if MPIRUN is None:
        skip_or_fail("there is no mpirun; requirements-dev.txt installs one")
    return [MPIRUN, "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), "--merge-stderr-to-stdout",
            sys.executable, *map(str, words)]


def msrun(ranks, logs, *words):
    """Return the command that starts `words` with msrun. `logs` is the folder for the output of each process."""
    return ["msrun", f"--worker_num={ranks}", f"--local_worker_num={ranks}", f"--master_port={free_port()}",
            f"--log_dir={logs}", "--join=True", "--cluster_time_out=300", *map(str, words)]


def free_port():
    """Return a free port below the ephemeral range, which programs that ask for any port do not get."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def start(command, environment=(), **options):
    """Start a command as the leader of a new session; returns a psutil.Popen, which is ended with the test.

    `environment` are variables in addition to USER_ENVIRONMENT; programs of the tests also get PYTHONPATH. `options` are those
    of subprocess.Popen.
    """
    command = list(map(str, command))
    variables = {"PYTHONPATH": str(ROOT)} if any(word.startswith("tests/") for word in command) else {}
    options = {"cwd": ROOT, "stdin": subprocess.DEVNULL, "start_new_session": True, **options}
    STARTED.append(psutil.Popen(command, env={**USER_ENVIRONMENT, **variables, **dict(environment)}, **options))
    return STARTED[-1]


def start_logged(log, command, environment=(), **options):
    """Start a command, see `start`. Both output streams go to the file `log`, unless `options` name others."""
    with open(log, "w") as file:
        return start(command, environment, **{"stdout": file, "stderr": subprocess.STDOUT, **options})


def run_script(*words, ranks=1, timeout=600, folder=ROOT, environment=()):
    """Run a script with arguments to its end, alone or on several ranks of mpirun; returns a CompletedProcess with texts.

    Raises:
        subprocess.TimeoutExpired: it still runs after `timeout` seconds. It is killed with its descendants.
    """
    command = mpirun(ranks, *words) if ranks > 1 else [sys.executable, *words]
    script = start(command, environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = script.communicate(timeout=timeout)
    finally:
        end(script)
    return subprocess.CompletedProcess(words, script.returncode, output, errors)


def end(script):
    """Kill a process and its descendants, if they still run."""
    family = [script]
    with contextlib.suppress(psutil.NoSuchProcess):
        family += script.children(recursive=True)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=PATIENCE)


def end_started():
    """End the processes that tests have started, with all of their descendants, if they still run."""
    while STARTED:
        end(STARTED.pop())


def wait_until(condition, program, log, pause=0.05):
    """Return when `condition()` is true; fail if the program exits before, or after 5 minutes."""
    deadline = time.monotonic() + 300
    while not condition():
        assert program.poll() is None and time.monotonic() < deadline, Path(log).read_text()[-4000:]
        time.sleep(pause)


def wait_for(sign, program, log):
    """Wait until the file `log` contains the text `sign`; the program must not exit before."""
    wait_until(lambda: sign in Path(log).read_text(), program, log)


def assert_all_end(processes):
    """Check that all processes exit within PATIENCE seconds. Zombies have: a container may never collect an orphan's status."""
    for process in psutil.wait_procs(processes, timeout=PATIENCE)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            assert process.status() == psutil.STATUS_ZOMBIE


def wait_for_end(program, family):
    """Return the exit status of a program. It and the processes `family` must exit within PATIENCE seconds."""
    assert_all_end([program, *family])
    return program.wait()
