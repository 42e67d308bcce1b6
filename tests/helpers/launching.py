"""Start several processes."""
import contextlib
import random
import shutil
import socket
import sys
import time
from pathlib import Path

import psutil

from tests.helpers.scripts import USER_ENVIRONMENT

PATIENCE = 30  # seconds within which all processes of a run must exit
BESIDE_PYTHON = Path(sys.executable).parent
MPIRUN = str(BESIDE_PYTHON / "mpirun") if (BESIDE_PYTHON / "mpirun").exists() else shutil.which("mpirun")
# msrun starts the first `python` in PATH.
MSRUN_ENVIRONMENT = {**USER_ENVIRONMENT, "PATH": f"{BESIDE_PYTHON}:{USER_ENVIRONMENT['PATH']}"}


def launch(ranks, *words):
    """Return the command that starts `words`, a Python program and its arguments, as several processes."""
    return [MPIRUN, "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), "--merge-stderr-to-stdout",
            sys.executable, *map(str, words)]


def free_port():
    """Return a free port below the ephemeral range, which programs that ask for any port do not get."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def msrun(ranks, logs, *words):
    """Return the command that starts `words`, a Python program and its arguments, with msrun, in MSRUN_ENVIRONMENT. `logs` is the
    folder for the output of each process."""
    return [str(BESIDE_PYTHON / "msrun"), f"--worker_num={ranks}", f"--local_worker_num={ranks}", f"--master_port={free_port()}",
            f"--log_dir={logs}", "--join=True", "--cluster_time_out=300", *map(str, words)]


def wait_for(sign, program, log):
    """Wait until the file `log` contains the text `sign`; the program must not exit before."""
    deadline = time.monotonic() + 300
    while sign not in Path(log).read_text():
        assert program.poll() is None and time.monotonic() < deadline, Path(log).read_text()[-4000:]
        time.sleep(0.05)


def wait_for_end(program, family):
    """Return the exit status of a program. It and the processes `family` must exit within PATIENCE seconds."""
    started = time.monotonic()
    status = program.wait(timeout=PATIENCE)
    _, alive = psutil.wait_procs(family, timeout=PATIENCE - (time.monotonic() - started))
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    return status
