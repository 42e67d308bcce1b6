"""A progress bar with the time left, where standard output is a terminal."""
import os
import sys

from tqdm import tqdm

# Seconds without progress that are to be left out of the speed, with tqdm's `unpause`. It must be longer than the time between
# two updates that tqdm draws, which such a call puts off.
LONG_PAUSE = 1.0


class _Bar(tqdm):
    monitor_interval = 0  # no thread: worker processes that read data, where max_rowsize asks for them, are forked from this one


def progress_bar(title, unit, total, rank=0, initial=0):
    """tqdm's bar on standard output, to be closed; where that is no terminal, and on ranks other than 0, it does nothing, as its
    attribute `disable` tells. `unit` is what is counted, singular, and `initial` how many of `total` were done before.
    """
    return _Bar(desc=title, unit=f" {unit}s", total=total, initial=initial, file=sys.stdout, dynamic_ncols=True, leave=False,
                disable=rank > 0 or not is_terminal(sys.stdout))


def is_terminal(stream):
    """Whether the text file `stream` is a terminal that someone may look at.

    mpirun gives its processes one without columns, even where its own output goes to a file.
    """
    try:
        return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0
    except OSError:
        return False
