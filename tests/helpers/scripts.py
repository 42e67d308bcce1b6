"""The scripts of the project, each run in a process of its own that has imported what it needs before it starts.

That import takes half of the time of a short run: one process, Python's fork server, does it for all runs and duplicates itself
for each. The quick start, msrun, and runs on several ranks of which one fails start the scripts from nothing, as users do.
"""
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from tests.helpers.paths import ROOT

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.helpers.preloaded"])


class Script(psutil.Process):
    """A running script, with the methods of subprocess.Popen that tests use.

    Args:
        words: the script's path and its arguments.
        output: path of the file that gets its standard output.
        errors: the same for standard error.
        folder: where it runs.
        environment: dict of variables that it has beside those of the tests, or with other values.
    """

    def __init__(self, words, output, errors, folder=ROOT, environment=()):
        processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None  # which a child would inherit
        self.process = FORKS.Process(target=run_in_this_process, args=(
            [str(word) for word in words], str(output), str(errors), str(folder), dict(environment), processors))
        self.process.start()
        super().__init__(self.process.pid)

    def poll(self):
        return self.process.exitcode

    def wait(self, timeout=None):
        """The exit status; that of a script which a signal ends is negative.

        Raises:
            TimeoutError: it runs still after so many seconds.
        """
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise TimeoutError(f"{self.cmdline()} runs still after {timeout} s")
        return self.process.exitcode


def run_in_this_process(words, output, errors, folder, environment, processors):
    """Run a script in a folder, its path there the first of the words, as the leader of a group of processes."""
    os.setsid()
    if processors:
        os.sched_setaffinity(0, processors)
    multiprocessing.set_start_method(None, force=True)  # Python's default: its child is told to use the fork server, too
    os.environ.update(environment)
    os.chdir(folder)
    # As `python script.py` does.
    sys.path[:0] = [str(Path(words[0]).resolve().parent), *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    for path, stream in ((output, 1), (errors, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.argv = words
    sys.stdout = os.fdopen(1, "w", closefd=False)
    try:
        runpy.run_path(words[0], run_name="__main__")
    finally:
        if "mpi4py.MPI" in sys.modules:
            sys.modules["mpi4py.MPI"].Finalize()  # which mpi4py leaves to the end of Python, that a copy does not come to


def start_script(log, *words):
    """Start a script and its arguments; the file `log` gets both of its streams."""
    Path(log).write_text("")
    return Script(words, log, log)


def run_script(*words, timeout=600, folder=ROOT, environment=()):
    """Run a script and its arguments, as `Script` does, to the end -> subprocess.CompletedProcess with texts.

    Raises:
        TimeoutError: it runs still after so many seconds.
    """
    with tempfile.TemporaryDirectory() as streams:
        output, errors = Path(streams, "stdout"), Path(streams, "stderr")
        script = Script(words, output, errors, folder, environment)
        try:
            status = script.wait(timeout)
        finally:
            if script.poll() is None:
                script.kill()
        return subprocess.CompletedProcess(words, status, output.read_text(), errors.read_text())
