"""Scripts on several ranks of mpirun."""
import subprocess

import psutil

from tests.helpers.launching import launch
from tests.helpers.paths import ROOT
from tests.helpers.scripts import STARTED, USER_ENVIRONMENT, end, run_script


def run_ranks(ranks, *words, environment=(), timeout=330):
    """Run a script with arguments on `ranks` ranks to its end; returns a CompletedProcess with the output of all ranks.

    A single rank is started without mpirun.

    Args:
            environment: dict of variables, see `Script`.
    """
    if ranks == 1:
        return run_script(*words, timeout=timeout, environment=environment)
    variables = {"PYTHONPATH": str(ROOT)} if str(words[0]).startswith("tests/") else {}
    program = psutil.Popen(launch(ranks, *words), cwd=ROOT, env={**USER_ENVIRONMENT, **variables, **dict(environment)},
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           start_new_session=True)
    STARTED.append(program)
    try:
        output, _ = program.communicate(timeout=timeout)
    finally:
        if program.poll() is None:
            end(program)
    return subprocess.CompletedProcess(words, program.returncode, output, "")
