"""One process, or many that mpirun started: who is there, and how they speak to each other.

Both kinds answer to the same calls. A single process imports no MPI; several speak through mpi4py, whatever their device.
"""
import contextlib
import os
import socket
import sys

from src.errors import UserError


def join_processes():
    """`SingleProcess`, or the `MpiGroup` of which this process is one.

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
    """A process that nobody speaks to."""

    rank, size, local_rank, local_size = 0, 1, 0, 1

    def first_on_machine(self):
        return contextlib.nullcontext()

    def broadcast(self, value):
        return value

    def gather(self, value):
        return [value]

    def largest(self, number):
        return number

    def check_same(self, describe):
        pass

    def fail(self, status):
        return status


class MpiGroup:
    """One of several processes with a common fate.

    Args:
        mpi: the module mpi4py.MPI.

    Attributes:
        rank: number of this process, from 0; size: of all; local_rank, local_size: the same on its machine.
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

    def barrier(self):
        """Wait until all are here."""
        self._comm.Barrier()

    def broadcast(self, value):
        """The value that rank 0 has."""
        return self._comm.bcast(value)

    def gather(self, value):
        """The values of all in the order of their ranks, on rank 0; None elsewhere."""
        return self._comm.gather(value)

    def largest(self, number):
        """The largest of the numbers of all."""
        return self._comm.allreduce(number, op=self._mpi.MAX)

    def sum_in_place(self, array):
        """Replace an array of numbers by its sum over all processes."""
        self._comm.Allreduce(self._mpi.IN_PLACE, array)

    def check_same(self, describe):
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

    def fail(self, status):
        """End all processes with the status: one that left alone would leave the others waiting for ever."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._comm.Abort(status)
