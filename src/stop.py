"""Ending a run from outside: SIGTERM, as clusters send it before they take a machine away, and SIGINT, Ctrl-C."""
import logging
import os
import signal
import sys
import threading
import time

logger = logging.getLogger("faster_rcnn")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Seconds that a run may stand idle once it is to end. Data may never come: when a process that reads them dies, MindSpore sends
# the program SIGTERM.
MAX_IDLE_SECONDS = 20.0


class Stopped(Exception):  # noqa: N818 it is no error
    """A signal has ended training, and all is saved. `status` is what the program exits with: 143 or 130."""

    def __init__(self, status):
        super().__init__(status)
        self.status = status


class StopSignals:
    """SIGTERM and SIGINT end the program at once; inside of this context, the first one only asks it to end.

    A thread waits for them, and they are blocked in all others: MindSpore puts a SIGINT handler of its own over any other
    whenever it runs a graph, and Python's handlers would wait for the end of the graph. The processes that read data inherit
    the block, so that a signal to all processes of a run does not take the data away from the last step.

    Attributes:
        status: 128 + the number of the first signal, or 0; idle: set by the loop while it waits for data or evaluates, when
        ending the process would do no harm.
    """

    def __init__(self):
        self.status = 0
        self.idle = False
        self._asking = False

    def watch(self):
        """Begin; to be called before there are other threads, which inherit the block."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self):
        self._asking = True
        return self

    def __exit__(self, *_):
        self._asking = False

    def raise_if_asked(self):
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
            if not self.idle:
                return
            time.sleep(0.1)
        logger.error("the run has waited for data or evaluated for %.0f s: it ends with its last checkpoint", MAX_IDLE_SECONDS)
        os._exit(self.status)
