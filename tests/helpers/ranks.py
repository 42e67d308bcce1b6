"""Scripts on several ranks of mpirun, each in a process that has imported what it needs, see tests/helpers/scripts.py.

mpirun starts a small program for each rank, which sends the environment of its rank to this process and waits: the copy that
runs the script is the rank for MPI. As mpirun cannot end a copy, this is for ranks that come to their end by themselves.
"""
import os
import subprocess
import tempfile
import threading
from multiprocessing.connection import Listener

from tests.helpers.launching import PATIENCE, launch
from tests.helpers.paths import ROOT
from tests.helpers.scripts import run_script


def run_ranks(ranks, *words, environment=()):
    """Run a script and its arguments on so many ranks to the end -> subprocess.CompletedProcess with the output of all of them.

    A single rank has no mpirun.

    Args:
        environment: dict of variables, as `Script` takes it.
    """
    if ranks == 1:
        return run_script(*words, environment=environment)
    outputs = []

    def run_rank():
        with listener.accept() as rank:
            done = run_script(*words, timeout=300, environment={**rank.recv(), **dict(environment)})
            outputs.append(done.stdout + done.stderr)
            rank.send(done.returncode)

    with tempfile.TemporaryDirectory() as folder, Listener(os.path.join(folder, "socket")) as listener:
        threads = [threading.Thread(target=run_rank, daemon=True) for _ in range(ranks)]
        for thread in threads:
            thread.start()
        done = subprocess.run(launch(ranks, ROOT / "tests/programs/rank.py", listener.address), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=330)
        for thread in threads:
            thread.join(PATIENCE)
    return subprocess.CompletedProcess(words, done.returncode, done.stdout + "".join(outputs), "")
