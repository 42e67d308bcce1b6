"""A progress bar with the remaining time, if standard output is a terminal."""
import os
import sys

from tqdm import tqdm

# Longer pauses, in seconds, are excluded from the speed with tqdm's `unpause`. The value must exceed the time between two
# updates that tqdm draws, because `unpause` delays the next update.
LONG_PAUSE = 1.0


class _Bar(tqdm):
    monitor_interval = 0  # no monitor thread, because data workers are forked from this process if max_rowsize is set


def progress_bar(title, unit, total, rank=0, initial=0):
    """Return tqdm's bar on standard output, which the caller must close. If that is not a terminal, or on ranks other than 0, the
    bar does nothing, and its attribute `disable` is True. `unit` is the singular noun of the counted items, and `initial` the
    number of the `total` items that were done before."""
    return _Bar(desc=title, unit=f" {unit}s", total=total, initial=initial, file=sys.stdout, dynamic_ncols=True, leave=False,
                disable=rank > 0 or not is_terminal(sys.stdout))


def is_terminal(stream):
    """Return whether the text file `stream` is a terminal that a user may see.

    mpirun starts its processes in a terminal without columns, even if mpirun's output goes to a file.
    """
    try:
        return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0
    except OSError:
        return False
