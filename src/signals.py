"""Ending a run from outside: SIGTERM, as clusters send it before they take a machine away, and SIGINT, Ctrl-C."""
from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

logger = logging.getLogger("faster_rcnn")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# How long a run may stay idle after a signal: data that a failing disk or network does not deliver may never come.
MAX_IDLE_SECONDS = 20.0


class Stopped(Exception):  # noqa: N818 it is no error
    """A signal has ended the run, and its state is saved. `status` is the exit status: 143 or 130."""

    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


class StopSignals:
    """SIGTERM and SIGINT end the program at once; within this context, the first one only asks it to end.

    A thread waits for them, and they are blocked in all others: MindSpore puts a SIGINT handler of its own over any other
    whenever it runs a graph, and Python's handlers would wait for the end of the graph. Worker processes that read data
    inherit the block, so that a signal to all processes of a run does not take the data away from the last step.

    Attributes:
        status: 128 + the number of the first signal, or 0.
    """

    def __init__(self):
        self.status = 0
        self._idle = False
        self._asking = False

    def watch(self) -> None:
        """Begin; to be called before there are other threads, which inherit the block."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        # msrun's scheduler only connects the others, which get the signal as well, and must not end before them.
        if os.environ.get("MS_ROLE") != "MS_SCHED":
            threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> StopSignals:
        self._asking = True
        return self

    def __exit__(self, *_) -> None:
        self._asking = False

    @contextlib.contextmanager
    def idle(self) -> Iterator[None]:
        """A block in which ending the process does no harm, such as waiting for data: after a signal it lasts at most
        MAX_IDLE_SECONDS."""
        self._idle = True
        try:
            yield
        finally:
            self._idle = False

    def raise_if_asked(self) -> None:
        """Raises Stopped after a signal."""
        if self.status:
            raise Stopped(self.status)

    def _watch(self):
        while True:
            number = signal.sigwait(SIGNALS)
            name = signal.Signals(number).name
            if self.status or not self._asking:
                print(f"ended by {name}", file=sys.stderr, flush=True)
                os._exit(128 + number)
            self.status = 128 + number
            logger.info("%s: training ends after this step; a second one ends it at once", name)
            threading.Thread(target=self._end_if_idle, daemon=True).start()

    def _end_if_idle(self):
        deadline = time.monotonic() + MAX_IDLE_SECONDS
        while time.monotonic() < deadline:
            if not self._idle:
                return
            time.sleep(0.1)
        logger.error("the run has waited for data or evaluated for %.0f s: it ends with its last checkpoint", MAX_IDLE_SECONDS)
        os._exit(self.status)
