"""Start and end of every program: environment variables, signals, processes, exit status, logging and progress bars.

MindSpore reads the environment and starts threads during its import. A program's `main` therefore contains the imports that
need MindSpore, and they run after `launch` has prepared the process.
"""
from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import IO, Any, Callable

from tqdm import tqdm

from src.errors import UserError, one_line
from src.run.distributed import Group, SingleProcess, join_processes
from src.run.environment import set_environment
from src.run.signals import Stopped, StopSignals

# Longer pauses, in seconds, are excluded from the speed with tqdm's `unpause`. The value must exceed the time between two
# updates that tqdm draws, because `unpause` delays the next update.
LONG_PAUSE = 1.0


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
        status = stopped.status
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
    logger.handlers = [handler]
    return logger


class _Bar(tqdm):
    monitor_interval = 0  # no monitor thread, because data workers are forked from this process if max_rowsize is set


def progress_bar(title: str, unit: str, total: int, rank: int = 0, initial: int = 0) -> tqdm:
    """Return tqdm's bar with the remaining time on standard output, which the caller must close.

    If that is not a terminal, or on ranks other than 0, the bar does nothing, and its attribute `disable` is True. `unit` is the
    singular noun of the counted items, and `initial` the number of the `total` items that were done before.
    """
    return _Bar(desc=title, unit=f" {unit}s", total=total, initial=initial, file=sys.stdout, dynamic_ncols=True, leave=False,
                disable=rank > 0 or not _is_terminal(sys.stdout))


def _is_terminal(stream: IO) -> bool:
    """Return whether `stream` is a terminal that a user may see. mpirun starts its processes in a terminal without columns."""
    try:
        return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0
    except OSError:
        return False
