"""How several processes are started."""
import contextlib
import random
import shutil
import socket
import sys
import time
from pathlib import Path

import psutil

from tests.helpers.scripts import USER_ENVIRONMENT

PATIENCE = 30  # seconds until all processes of a run must have ended
BESIDE_PYTHON = Path(sys.executable).parent
MPIRUN = str(BESIDE_PYTHON / "mpirun") if (BESIDE_PYTHON / "mpirun").exists() else shutil.which("mpirun")
# msrun starts the first `python` of PATH.
MSRUN_ENVIRONMENT = {**USER_ENVIRONMENT, "PATH": f"{BESIDE_PYTHON}:{USER_ENVIRONMENT['PATH']}"}


def launch(ranks, *words):
    """The command that starts `words`, a Python program and its arguments, as several processes."""
    return [MPIRUN, "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), "--merge-stderr-to-stdout",
            sys.executable, *map(str, words)]


def free_port():
    """A free port below the ephemeral range: a program that asks for any port does not get it."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def msrun(ranks, logs, *words):
    """The command that starts `words`, a Python program and its arguments, through MindSpore's launcher, in MSRUN_ENVIRONMENT;
    `logs` is a folder for what each process prints."""
    return [str(BESIDE_PYTHON / "msrun"), f"--worker_num={ranks}", f"--local_worker_num={ranks}", f"--master_port={free_port()}",
            f"--log_dir={logs}", "--join=True", "--cluster_time_out=300", *map(str, words)]


def wait_for(sign, program, log):
    """Wait until the file `log` has the text `sign`; the program must not end before."""
    deadline = time.monotonic() + 300
    while sign not in Path(log).read_text():
        assert program.poll() is None and time.monotonic() < deadline, Path(log).read_text()[-4000:]
        time.sleep(0.05)


def wait_for_end(program, family):
    """The exit status of a program; it and the processes `family` must end within PATIENCE seconds."""
    started = time.monotonic()
    status = program.wait(timeout=PATIENCE)
    _, alive = psutil.wait_procs(family, timeout=PATIENCE - (time.monotonic() - started))
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    return status
