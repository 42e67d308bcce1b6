"""Running a child process that may crash or hang."""
from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, NamedTuple

from src.run.distributed import ROOT

LAST_LINES = 60
PAUSE = 0.1        # seconds between two looks at a child
TO_DIE = 15        # seconds that a child gets to end itself


class Ending(NamedTuple):
    """How a child ended.

    Attributes:
        failure: what was wrong, or "".
        seconds: from its start to its end.
        first_s: seconds until it had first written to the watched file, or None.
        output: its last lines.
    """
    failure: str
    seconds: float
    first_s: float | None
    output: str


def run_child(command: list[str], log: Path, limit: float, watched: Path | None = None,
              grown: Callable[[], None] = lambda: None) -> Ending:
    """Run a command in the project's folder to its end.

    Args:
        log: file that takes its output.
        limit: seconds that it may take, counted anew whenever it has written to `watched`. After them it is aborted, and a Python
            program's log says where it stood.
        watched: a file that it appends to.
        grown: called when it has.
    """
    start = last = time.monotonic()
    first_s, size, timed_out = None, 0, False
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1",
                   "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}  # msrun runs `python`
    with open(log, "wb") as file:
        # Linux kills the child when this process ends for any reason (PR_SET_PDEATHSIG): it would keep the device.
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   env=environment, start_new_session=True,
                                   preexec_fn=lambda: sys.platform == "linux" and ctypes.CDLL(None).prctl(1, signal.SIGKILL))
        try:
            while process.poll() is None:
                time.sleep(PAUSE)
                written = watched.stat().st_size if watched and watched.exists() else 0
                if written > size:
                    size, last = written, time.monotonic()
                    first_s = first_s or last - start
                    grown()
                if time.monotonic() - last > limit:
                    timed_out = True
                    break
        finally:
            _end(process)
    failure = f"no progress in {limit:g} s" if timed_out else _failure(process.returncode)
    return Ending(failure, time.monotonic() - start, first_s, last_lines(log))


def _end(process):
    """Abort what still runs, so that Python's fault handler says where, and then kill the whole session."""
    if process.poll() is None:
        process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TO_DIE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _failure(status):
    if status >= 0:
        return f"exit status {status}" if status else ""
    try:
        return f"ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"ended by signal {-status}"


def last_lines(log: Path) -> str:
    """The end of a log, LAST_LINES lines."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])
