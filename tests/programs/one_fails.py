"""Rank 1 fails in the way given as argument while the remaining ranks wait for it."""
import sys

from src.errors import UserError
from src.run.launch import launch


def main(_, group, __):
    if group.rank == 1:
        raise UserError("the disk of rank 1 is full; make room.") if sys.argv[1] == "user" else ZeroDivisionError("a defect")
    group.barrier()


if __name__ == "__main__":
    sys.exit(launch(main, lambda: None))
