"""Start and end of every program: environment variables, signals, processes, exit status, logging and progress bars.

MindSpore reads the environment and starts threads during its import. A program's `main` therefore contains the imports that
need MindSpore, and they run after `launch` has prepared the process. SIGTERM, which clusters send before they take a machine,
and SIGINT (Ctrl-C) end a run.
"""
from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Callable

from tqdm import tqdm

from src.errors import UserError, one_line
from src.run.distributed import Group, SingleProcess, join_processes
from src.run.environment import set_environment

logger = logging.getLogger("faster_rcnn")

# Longer pauses, in seconds, are excluded from the speed with tqdm's `unpause`. The value must exceed the time between two
# updates that tqdm draws, because `unpause` delays the next update.
LONG_PAUSE = 1.0
tqdm.monitor_interval = 0  # no monitor thread, because data workers are forked from this process if max_rowsize is set

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Maximum idle time of a run after a signal, because data from a failing disk or network may never arrive.
MAX_IDLE_SECONDS = 20.0
# Signals within this time after the first belong to the same request: GNU `timeout` signals the process and then its group.
GRACE_SECONDS = 2.0


class Stopped(SystemExit):
    """A signal has ended the run, and its state is saved. `code` is the exit status: 143 or 130."""


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


def launch(main: Callable, parse_args: Callable[[], Any]) -> int:
    """Run a program to its end in this process and return its exit status; see `run`."""
    stop = StopSignals()
    stop.watch()
    set_environment()
    return run(main, parse_args, stop)


def run(main: Callable, parse_args: Callable[[], Any], stop: StopSignals | None = None) -> int:
    """Call `main(args, group, stop)`.

    Args:
        main: the program; it returns the exit status, and None means 0.
        parse_args: function that returns the configuration, or other arguments, from the command line.
        stop: the signals that may end the program.

    Returns:
        The exit status: 1 after a UserError, which is printed as one line; 130 or 143 after a signal. If one of several
        processes fails, all end. Other exceptions are defects and keep their traceback.
    """
    group: Group = SingleProcess()
    try:
        group = join_processes()
        set_up_logging(group.rank)
        status = main(parse_args(), group, stop) or 0
    except Stopped as stopped:
        status = stopped.code
    except UserError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except Exception:
        if group.size == 1:
            raise
        traceback.print_exc()
        status = 1
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        group.fail(status)
    return status


class _LogHandler(logging.StreamHandler):
    """Hides progress bars while it writes a line, and draws them again below it."""

    def emit(self, record):
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def set_up_logging(rank: int = 0) -> logging.Logger:
    """Send the records of the logger `faster_rcnn` to standard output, one line each with date and time; return the logger.

    Only rank 0 reports, except errors. Messages about one process's share of the data go to the logger `faster_rcnn.share`,
    which reports on every rank.
    """
    if hasattr(sys.stdout, "reconfigure"):
        # A file name may have characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    logger = logging.getLogger("faster_rcnn")
    logger.setLevel(logging.INFO if rank == 0 else logging.ERROR)
    logging.getLogger("faster_rcnn.share").setLevel(logging.INFO)
    logger.propagate = False
    handler = _LogHandler(sys.stdout) if _is_terminal(sys.stdout) else logging.StreamHandler(sys.stdout)
    sender = f"rank {rank} " if rank else ""
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {sender}%(message)s", "%Y-%m-%d %H:%M:%S"))
    run_log.setFormatter(handler.formatter)
    run_log.setStream(io.StringIO())
    logger.handlers = [handler, run_log] if rank == 0 else [handler]
    return logger


class _RunLog(logging.StreamHandler):
    """Keeps the log until `open` names a file, and appends it to this file. If the disk is full, the first error is logged."""

    failed = False

    def open(self, path):
        file = open(path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115 open during the whole run
        file.write(self.stream.getvalue())  # into a buffer, which the next line flushes
        self.stream = file

    def end(self, error):
        if error:
            self.handle(logging.makeLogRecord({"levelname": "ERROR", "msg": f"ended by {type(error).__name__}: {error}"}))
        with contextlib.suppress(OSError):
            self.stream.close()
        self.stream = io.StringIO()

    def handleError(self, _):  # noqa: N802 logging's name
        if not self.failed:
            self.failed = True
            logger.error("%s cannot be written (%s); training goes on", self.stream.name, sys.exc_info()[1])


run_log = _RunLog(io.StringIO())


def progress_bar(title: str, unit: str, total: int, rank: int = 0, initial: int = 0) -> tqdm:
    """Return tqdm's bar with the remaining time on standard output, which the caller must close.

    If that is not a terminal, or on ranks other than 0, the bar does nothing, and its attribute `disable` is True. `unit` is the
    singular noun of the counted items, and `initial` the number of the `total` items that were done before.
    """
    return tqdm(desc=title, unit=f" {unit}s", total=total, initial=initial, file=sys.stdout, dynamic_ncols=True, leave=False,
                disable=rank > 0 or not _is_terminal(sys.stdout))


def _is_terminal(stream: IO) -> bool:
    """Return whether `stream` is a terminal that a user may see. mpirun starts its processes in a terminal without columns."""
    try:
        return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0
    except OSError:
        return False
