"""The process group: one process, or the several that mpirun started, and how they communicate.

Both kinds have the same methods. A single process imports no MPI; several communicate through mpi4py, whatever their device.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, Callable, Union

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
        return SingleProcess()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UserError(f"mpirun started {started} processes, but mpi4py cannot be imported ({error}); "
                        "install it: pip install -r requirements-mpi.txt.") from error
    if MPI.COMM_WORLD.size != started:
        raise UserError(f"mpirun started {started} processes, but mpi4py sees {MPI.COMM_WORLD.size}: it was built for another "
                        "MPI than this mpirun; install the two together.")
    return MpiGroup(MPI)


class SingleProcess:
    """The process group of a single process: rank 0 of 1."""

    rank, size, local_rank, local_size = 0, 1, 0, 1

    def first_on_machine(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def barrier(self) -> None:
        """There is nobody to wait for."""

    def broadcast(self, value: Any) -> Any:
        return value

    def gather(self, value: Any) -> list:
        return [value]

    def max(self, number: int) -> int:
        return number

    def all_reduce(self, array: np.ndarray) -> None:
        """The sum over one process is what it has."""

    def check_same(self, describe: Callable[[], dict]) -> None:
        """There is nobody to compare with."""

    def fail(self, status: int) -> int:
        return status


class MpiGroup:
    """One of several processes that mpirun started; if one fails, all end.

    Args:
        mpi: the module mpi4py.MPI.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: the same as `rank` among the processes of this machine.
        local_size: number of processes of this machine.
    """

    def __init__(self, mpi):
        self._mpi, self._comm = mpi, mpi.COMM_WORLD
        self.rank, self.size = self._comm.rank, self._comm.size
        machine = self._comm.Split_type(mpi.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = machine.rank, machine.size

    @contextlib.contextmanager
    def first_on_machine(self):
        """A block that one process of each machine passes before the others enter."""
        if self.local_rank > 0:
            self._comm.Barrier()
        yield
        if self.local_rank == 0:
            self._comm.Barrier()

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self._comm.Barrier()

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0."""
        return self._comm.bcast(value)

    def gather(self, value: Any) -> list | None:
        """The values of all processes in the order of their ranks, on rank 0; None elsewhere."""
        return self._comm.gather(value)

    def max(self, number: int) -> int:
        """The largest of the numbers of all processes."""
        return self._comm.allreduce(number, op=self._mpi.MAX)

    def all_reduce(self, array: np.ndarray) -> None:
        """Replace a contiguous array of numbers by its sum over all processes."""
        self._comm.Allreduce(self._mpi.IN_PLACE, array)

    def check_same(self, describe: Callable[[], dict]) -> None:
        """Check that all processes have the same.

        Args:
            describe: function that gives a dict of description -> what is compared.

        Raises:
            UserError: on rank 0, naming the first that differs; the others wait for their end.
        """
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
        sys.stdout.flush()
        sys.stderr.flush()
        self._comm.Abort(status)
        return status


Group = Union[SingleProcess, MpiGroup]


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
