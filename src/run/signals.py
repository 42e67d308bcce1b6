"""Ending a run with SIGTERM, which clusters send before they take a machine away, or with SIGINT (Ctrl-C)."""
from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger("faster_rcnn")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Maximum idle time of a run after a signal, because data from a failing disk or network may never arrive.
MAX_IDLE_SECONDS = 20.0
# Signals within this time after the first belong to the same request: GNU `timeout` signals the process and then its group.
GRACE_SECONDS = 2.0


class Stopped(Exception):  # noqa: N818 it is not an error
    """A signal has ended the run, and its state is saved. `status` is the exit status: 143 or 130."""

    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


class StopSignals:
    """Makes SIGTERM and SIGINT end the program at once; within this context, the first signal only requests the end.

    One thread waits for the signals, and all other threads block them. MindSpore replaces any SIGINT handler whenever it runs
    a graph, and Python's handlers would run only after the graph. Data workers inherit the block, so that the last step still
    gets its data if all processes of a run receive the signal.

    Attributes:
        status: 128 + the number of the first signal, or 0.
    """

    _idle = False  # whether the process is in an `idle` block

    def __init__(self) -> None:
        self.status, self._asking = 0, False

    def watch(self) -> None:
        """Block the signals in all threads, and wait for them in a new thread.

        Later threads and programs inherit the block, but in existing threads (for example NumPy's) a signal would still end the
        process. If such threads exist, the process executes its command line again, because a new program starts with one
        thread. A notebook that runs the script is not restarted.
        """
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if not blocked.issuperset(SIGNALS) and len(list(Path("/proc/self/task").glob("*"))) > 1:
            words = Path("/proc/self/cmdline").read_bytes().split(b"\0")[1:-1]  # sys.orig_argv needs Python 3.10
            if os.fsencode(sys.argv[0]) in words and os.path.isfile(sys.argv[0]):
                os.execv(sys.executable, [os.fsencode(sys.executable), *words])
        # msrun's scheduler must not end before the processes that it connects, which also get the signal.
        if os.environ.get("MS_ROLE") != "MS_SCHED":
            threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> StopSignals:
        self._asking = True
        return self

    def __exit__(self, *_: object) -> None:
        self._asking = False

    @staticmethod
    @contextlib.contextmanager
    def idle() -> Iterator[None]:
        """A context for interruptible code, such as waiting for data: after a signal it lasts at most MAX_IDLE_SECONDS."""
        before, StopSignals._idle = StopSignals._idle, True
        try:
            yield
        finally:
            StopSignals._idle = before

    def raise_if_asked(self) -> None:
        """Raise Stopped if a signal has arrived."""
        if self.status:
            raise Stopped(self.status)

    def _watch(self):
        asked = -GRACE_SECONDS
        while True:
            number = signal.sigwait(SIGNALS)
            name = signal.Signals(number).name
            if time.monotonic() < asked + GRACE_SECONDS:
                continue
            if self.status or not self._asking:
                with contextlib.suppress(OSError):  # a full disk or a closed terminal
                    print(f"ended by {name}", file=sys.stderr, flush=True)
                os._exit(128 + number)
            self.status, asked = 128 + number, time.monotonic()
            logger.info("%s: training ends after this step; a signal more than %g s later ends it at once", name, GRACE_SECONDS)
            threading.Thread(target=self._end_if_idle, daemon=True).start()

    def _end_if_idle(self):
        deadline = time.monotonic() + MAX_IDLE_SECONDS
        while time.monotonic() < deadline:
            if not self._idle:
                deadline = time.monotonic() + MAX_IDLE_SECONDS
            time.sleep(0.1)
        logger.error("the run has waited or evaluated for %.0f s: it ends with its last checkpoint", MAX_IDLE_SECONDS)
        os._exit(self.status)
