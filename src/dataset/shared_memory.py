"""The shared memory through which worker processes hand over their rows."""
import os
import sys

from src.errors import UserError

FOLDER = "/dev/shm"
# MindSpore refuses to start workers that would take more of what is free.
MAX_SHARE = 0.8
MEGABYTE = 2**20


def megabytes_of_rows(source, size):
    """Shared memory for `size` rows of a source in a worker's queue, in MB.

    A fixed size rather than MindSpore's -1 (as much as a row needs): fixed segments have no name in /dev/shm and vanish
    with the processes however these end. They are filled with zeros at once, so no more is asked for than the rows take.
    """
    height, width = source.maker.target_size
    row_bytes = height * width * 3 + source.maker.padding_size * 32 + 4096
    return size * row_bytes // MEGABYTE + 1


def megabytes_of_queues(workers, prefetch_size, megabytes):
    """What MindSpore allocates for the queues of `workers` processes at once, in MB; nothing for a single worker.

    Args:
        prefetch_size: depth of the queues that was asked for; megabytes: of an item in a queue.
    """
    if workers == 1:
        return 0
    depth = max(2, min(prefetch_size, prefetch_size * 4 // workers))
    return workers * (depth + 2) * megabytes  # one more is being written, and one being read


def require_shared_memory(megabytes):
    """Check that `megabytes` are free, before MindSpore or the operating system find out in the middle of something.

    Raises:
        UserError: they are not; says what is needed, what is free and what to do.
    """
    if megabytes == 0 or not sys.platform.startswith("linux"):
        return
    try:
        status = os.statvfs(FOLDER)
        free = status.f_bavail * status.f_frsize / MEGABYTE
    except OSError:  # some containers have none
        free = 0
    if megabytes >= MAX_SHARE * free:
        raise UserError(f"the worker processes need {megabytes} MB of shared memory, which must be less than {MAX_SHARE:.0%} "
                        f"of the {free:.0f} MB that are free in {FOLDER}: give --num_workers 1, a smaller prefetch_size or "
                        "batch_size, or make it larger (docker run --shm-size).")
