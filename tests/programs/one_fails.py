"""Rank 1 fails in the way given as argument while the remaining ranks wait for it."""
import os
import signal
import sys

from src.errors import UserError
from src.run.launch import launch


def main(_, group, __):
    if group.rank == 1:
        if sys.argv[1] == "user":
            raise UserError("the disk of rank 1 is full; make room.")
        if sys.argv[1] == "defect":
            raise ZeroDivisionError("a defect on rank 1")
        os.kill(os.getpid(), signal.SIGKILL)
    group.barrier()


if __name__ == "__main__":
    sys.exit(launch(main, lambda: None))
