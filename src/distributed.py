"""The process group: one process, or the several that mpirun started, and how they communicate.

A single process imports no MPI; several communicate through mpi4py, whatever their device.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import numpy as np

from src.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def join_processes() -> Group:
    """The group that this process belongs to.

    Raises:
        UserError: mpirun started several processes, but mpi4py is missing or belongs to another MPI.
    """
    started = int(os.environ.get("OMPI_COMM_WORLD_SIZE") or os.environ.get("PMI_SIZE") or 1)
    if started == 1:
        return Group()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UserError(f"mpirun started {started} processes, but mpi4py cannot be imported ({error}); "
                        "install it: pip install -r requirements-mpi.txt.") from error
    if MPI.COMM_WORLD.size != started:
        raise UserError(f"mpirun started {started} processes, but mpi4py sees {MPI.COMM_WORLD.size}: it was built for another "
                        "MPI than this mpirun; install the two together.")
    return Group(MPI)


class Group:
    """One of several processes that mpirun started, which all end if one fails; or a single one, rank 0 of 1, without an MPI.

    Args:
        mpi: the module mpi4py.MPI, None for a single process.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: the same as `rank` among the processes of this machine.
        local_size: number of processes of this machine.
    """

    def __init__(self, mpi=None):
        self.rank, self.size, self.local_rank, self.local_size = 0, 1, 0, 1
        if mpi:
            self._mpi, self._comm = mpi, mpi.COMM_WORLD
            self.rank, self.size = self._comm.rank, self._comm.size
            machine = self._comm.Split_type(mpi.COMM_TYPE_SHARED)
            self.local_rank, self.local_size = machine.rank, machine.size

    @contextlib.contextmanager
    def first_on_machine(self) -> Iterator[None]:
        """A block that one process of each machine passes before the others enter."""
        if self.local_rank > 0:
            self.barrier()
        yield
        if self.local_rank == 0:
            self.barrier()

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            self._comm.Barrier()

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0."""
        return self._comm.bcast(value) if self.size > 1 else value

    def gather(self, value: Any) -> list | None:
        """The values of all processes in the order of their ranks, on rank 0; None elsewhere."""
        return self._comm.gather(value) if self.size > 1 else [value]

    def max(self, number: int) -> int:
        """The largest of the numbers of all processes."""
        return self._comm.allreduce(number, op=self._mpi.MAX) if self.size > 1 else number

    def all_reduce(self, array: np.ndarray) -> None:
        """Replace a contiguous array of numbers by its sum over all processes."""
        if self.size > 1:
            self._comm.Allreduce(self._mpi.IN_PLACE, array)

    def check_same(self, describe: Callable[[], dict]) -> None:
        """Check that all processes have the same.

        Args:
            describe: function that gives a dict of description -> what is compared; a single process does not call it.

        Raises:
            UserError: on rank 0, naming the first that differs; the others wait for their end.
        """
        if self.size == 1:
            return
        everyone = self._comm.gather((socket.gethostname(), describe()))
        for rank, (host, theirs) in enumerate(everyone or ()):
            first_host, expected = everyone[0]
            different = [description for description in expected if theirs.get(description) != expected[description]]
            if different:
                raise UserError(f"rank {rank} on {host} has another {different[0]} than rank 0 on {first_host}; make them the "
                                "same everywhere.")
        self._comm.Barrier()

    def fail(self, status: int) -> int:
        """End all processes with the status: the others would wait for one that ended by itself."""
        if self.size > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            self._comm.Abort(status)
        return status


def program_digest() -> str:
    """A digest of the program's files and MindSpore's version."""
    import mindspore as ms
    digest = hashlib.sha256(ms.__version__.encode())
    for pattern in ("*.py", "src/**/*.py", "src/cpu_kernels/*.cc", "src/cpu_kernels/*.h"):
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def check_same_program(group: Group, settings: dict) -> None:
    """Check that all processes run the same code and MindSpore with the same configuration, a dict of plain values.

    Raises:
        UserError: on rank 0, if they do not.
    """
    group.check_same(lambda: {"version of this program or of MindSpore": program_digest(),
                              "configuration": json.dumps(settings, sort_keys=True)})
