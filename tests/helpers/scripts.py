"""Start the project's scripts in new processes, as a user does."""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from src.run.environment import DEFAULTS
from tests.helpers.paths import ROOT

# Environment variable with the first process of pytest, for all processes that it starts directly or indirectly.
MARK = "FASTER_RCNN_TESTS"
os.environ.setdefault(MARK, str(os.getpid()))
# A user's environment, before tests/conftest.py sets the variables that the scripts set themselves.
USER_ENVIRONMENT = {name: value for name, value in os.environ.items() if DEFAULTS.get(name) != value}
STARTED = []  # scripts that tests have started and that may still run


class Script(psutil.Popen):
    """A running script, the leader of a new session, with the methods of subprocess.Popen and psutil.Process.

    Args:
        words: the script's path and its arguments.
        output: path of the file to which its standard output is appended.
            errors: path of the file for standard error.
        folder: working directory.
        environment: dict of variables that are added to USER_ENVIRONMENT. Programs of the tests also get PYTHONPATH.
    """

    def __init__(self, words, output, errors, folder=ROOT, environment=()):
        words = [str(word) for word in words]
        variables = {"PYTHONPATH": str(ROOT)} if words[0].startswith("tests/") else {}
        with open(output, "a") as stdout, open(errors, "a") as stderr:
            super().__init__([sys.executable, *words], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, cwd=folder,
                             env={**USER_ENVIRONMENT, **variables, **dict(environment)}, start_new_session=True)
        STARTED.append(self)


def has_ended(number):
    """Return whether a process has ended. Zombies have: a container may never collect the exit status of an orphan."""
    try:
        return psutil.Process(number).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def end(process):
    """Kill a process (psutil.Process) and its descendants, if they still run."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        family = [process]
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=30)


def end_started():
    """End the scripts that tests have started, with all of their descendants, if they still run."""
    while STARTED:
        script = STARTED.pop()
        if script.poll() is None:
            end(script)


def end_left_over():
    """End and report all processes that this pytest session has started and that still run."""
    own = str(os.getpid())
    if os.environ[MARK] != own:
        return  # a pytest-xdist worker
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.environ().get(MARK) != own or process.status() == psutil.STATUS_ZOMBIE:
                continue
            words = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "multiprocessing.resource_tracker" not in words:  # it exits with its process
            end(process)
            print(f"ended {words}, which a test had left running", file=sys.stderr)


def start_script(log, *words, environment=()):
    """Start a script with arguments; both output streams go to the file `log`."""
    Path(log).write_text("")
    return Script(words, log, log, environment=environment)


def run_script(*words, timeout=600, folder=ROOT, environment=()):
    """Run a script with arguments to its end, see `Script`; returns a CompletedProcess with texts.

    Raises:
            psutil.TimeoutExpired: it still runs after `timeout` seconds. It is killed with its descendants.
    """
    with tempfile.TemporaryDirectory() as streams:
        output, errors = Path(streams, "stdout"), Path(streams, "stderr")
        script = Script(words, output, errors, folder, environment)
        try:
            status = script.wait(timeout)
        finally:
            if script.poll() is None:
                end(script)
        return subprocess.CompletedProcess(words, status, output.read_text(), errors.read_text())
