"""The process group: one process, or several processes that mpirun or msrun started, and their communication.

All groups have the same methods. Processes of mpirun communicate through mpi4py, processes of msrun through TCP.
"""
from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Union

from src.errors import UserError

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).resolve().parents[2]
KEY_BYTES = 32  # length of the secret with which msrun's processes authenticate each other


def join_processes() -> Group:
    """Return the group that this process belongs to.

    Raises:
        UserError: if mpirun started several processes, but mpi4py is missing or belongs to another MPI; if msrun started
            processes on several machines without their node ranks; if a rank table for several processes cannot be read.
    """
    started = int(os.environ.get("OMPI_COMM_WORLD_SIZE") or os.environ.get("PMI_SIZE") or 1)
    if started == 1 and os.environ.get("RANK_TABLE_FILE") and not os.environ.get("MS_ROLE"):
        _adopt_rank_table(os.environ.pop("RANK_TABLE_FILE"))
    if os.environ.get("MS_ROLE"):
        return MsrunGroup()
    if started == 1:
        return SingleProcess()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UserError(f"mpirun started {started} processes, but mpi4py cannot be imported ({error}); "
                        "install an MPI, and mpi4py with pip install -r requirements.txt.") from error
    if MPI.COMM_WORLD.size != started:
        raise UserError(f"mpirun started {started} processes, but mpi4py sees {MPI.COMM_WORLD.size}: it was built for another "
                        "MPI than this mpirun; install the two together.")
    return MpiGroup(MPI)


def _adopt_rank_table(path):
    """Set msrun's variables from the variables that ModelArts sets per card; rank 0 starts msrun's scheduler.

    MindSpore 2.10 itself no longer starts from a rank table, and it compiles differently if RANK_TABLE_FILE is set.
    """
    names = {"RANK_ID": "MS_NODE_ID", "RANK_SIZE": "MS_WORKER_NUM", "ASCEND_DEVICE_ID": "DEVICE_ID"}
    if os.environ.get("RANK_SIZE", "1" if "RANK_ID" not in os.environ else "") == "1":
        return
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
        servers = table.get("server_list") or [server for group in table["group_list"] for server in group["instance_list"]]
        first = next((server for server in servers if "0" in [own["rank_id"] for own in server.get("device", [])]), servers[0])
        host = "127.0.0.1" if len(servers) == 1 else first.get("host_ip") or first["server_id"]
        os.environ.update({name: str(int(os.environ[given])) for given, name in names.items()}, MS_SCHED_HOST=host)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"the rank table {path} (RANK_TABLE_FILE) cannot be used with {', '.join(names)} ({error!r}): start the "
                        "processes with msrun, see docs/devices.md.") from error
    os.environ.update(MS_ROLE="MS_WORKER", MS_SCHED_PORT=os.environ.get("MS_SCHED_PORT", "8118"))
    if os.environ["MS_NODE_ID"] == "0":
        subprocess.Popen([sys.executable, *sys.argv], stdout=subprocess.DEVNULL, env={**os.environ, "MS_ROLE": "MS_SCHED"})


class SingleProcess:
    """The process group of a single process: rank 0 of 1."""

    rank, size, local_rank, local_size = 0, 1, 0, 1

    def connect(self, device_target: str) -> None:
        """Do nothing: there is no other process to connect to."""

    def barrier(self) -> None:
        """Do nothing: there is no other process to wait for."""

    def broadcast(self, value: Any) -> Any:
        return value

    def gather(self, value: Any) -> list:
        return [value]

    def max(self, number: int) -> int:
        return number

    def all_reduce(self, array: np.ndarray) -> None:
        """Do nothing: the sum over one process is its array."""

    def fail(self, status: int) -> int:
        return status


class MpiGroup:
    """One of several processes that mpirun started; if one fails, all end.

    Args:
        mpi: the module mpi4py.MPI.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: number of this process among the processes of this machine, from 0.
        local_size: number of processes of this machine.
    """

    def __init__(self, mpi):
        self._mpi, self._comm = mpi, mpi.COMM_WORLD
        self.rank, self.size = self._comm.rank, self._comm.size
        machine = self._comm.Split_type(mpi.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = machine.rank, machine.size

    def connect(self, device_target: str) -> None:
        """Initialise the collectives of the selected device: HCCL on Ascend, NCCL on GPU; the CPU uses MPI only."""
        if device_target != "CPU":
            from mindspore.communication import init
            init()

    def barrier(self) -> None:
        """Wait until all processes have called this method."""
        self._comm.Barrier()

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0."""
        return self._comm.bcast(value)

    def gather(self, value: Any) -> list | None:
        """Return the values of all processes in rank order on rank 0, and None on other ranks."""
        return self._comm.gather(value)

    def max(self, number: int) -> int:
        """Return the largest of the numbers of all processes."""
        return self._comm.allreduce(number, op=self._mpi.MAX)

    def all_reduce(self, array: np.ndarray) -> None:
        """Replace a contiguous array of numbers by its sum over all processes."""
        self._comm.Allreduce(self._mpi.IN_PLACE, array)

    def fail(self, status: int) -> int:
        """End all processes with the status; if only this process ended, the rest would wait for it."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._comm.Abort(status)
        return status


class MsrunGroup:
    """One of several processes that MindSpore's launcher msrun started; if one fails, all end.

    Each process communicates with rank 0 through a TCP connection, on any device. MindSpore's collectives on the CPU fail if a
    process arrives 30 s later than another, as a process that scores an evaluation may.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: number of this process among the processes of this machine, from 0.
        local_size: number of processes of this machine, known after `connect`.

    Raises:
        UserError: if msrun has not numbered the processes.
    """

    def __init__(self):
        self._schedules = os.environ["MS_ROLE"] == "MS_SCHED"
        number = os.environ.get("MS_NODE_ID", "0" if self._schedules else None)
        if number is None:
            raise UserError("msrun has given this process no rank: on several machines, give each of them its --node_rank.")
        self.rank, self.size = int(number), int(os.environ["MS_WORKER_NUM"])
        self.local_rank, self.local_size = int(os.environ.get("DEVICE_ID", 0)), 1
        # Linux then sends SIGTERM when msrun ends for any reason. Without --join=True, msrun ends first and its processes go on.
        parent = os.getppid()
        with contextlib.suppress(OSError):  # msrun has ended, or /proc does not exist
            if re.search(rb"\0--join[=\0]True\0", Path(f"/proc/{parent}/cmdline").read_bytes()):
                ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
                if os.getppid() != parent:  # msrun ended before that call
                    os.kill(os.getpid(), signal.SIGTERM)
        self._connections: list[Connection] = []  # on rank 0: to all other ranks in order; elsewhere: to rank 0

    def connect(self, device_target: str) -> None:
        """Connect the processes after their device is set. Call it before the methods below and before creating tensors.

        In addition to the processes that train, msrun starts a scheduler that connects them. It ends here, after all of them.

        Raises:
            UserError: if rank 0 is not on the machine that msrun's --master_addr names.
        """
        import numpy as np
        from mindspore import Tensor
        from mindspore.communication import get_group_size, get_local_rank, get_local_rank_size, get_rank, init
        from mindspore.mint import distributed
        if device_target == "CPU":  # on Ascend, the variable also limits the time until HCCL's id arrives
            os.environ.setdefault("MS_NODE_TIMEOUT", "15")  # seconds until the scheduler notices a killed process
        init()
        if self._schedules:
            sys.exit(0)
        self.rank, self.size = get_rank(), get_group_size()
        self.local_rank, self.local_size = get_local_rank(), get_local_rank_size()
        host = os.environ["MS_SCHED_HOST"]
        key, port = secrets.token_bytes(KEY_BYTES), 0
        if self.rank == 0:
            try:
                listener = Listener((host, 0), backlog=self.size, authkey=key)
            except OSError as error:
                raise UserError(f"rank 0 cannot listen at {host} ({error.strerror}): give --node_rank=0 to msrun on the machine "
                                "that --master_addr names.") from error
            port = int(listener.address[1])
        shared = Tensor(np.frombuffer(key + port.to_bytes(2, "big"), np.int8))
        distributed.broadcast(shared, 0)  # the collectives of all devices support int8
        if self.rank > 0:
            content = shared.asnumpy().tobytes()
            address = host, int.from_bytes(content[KEY_BYTES:], "big")
            self._connections = [Client(address, authkey=content[:KEY_BYTES])]
            self._connections[0].send(self.rank)
        else:
            with listener:
                by_rank = {connection.recv(): connection for connection in (listener.accept() for _ in range(1, self.size))}
            self._connections = [by_rank[rank] for rank in range(1, self.size)]

    def barrier(self) -> None:
        """Wait until all processes have called this method."""
        self.broadcast(self.gather(None))

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0."""
        if self.rank > 0:
            return self._connections[0].recv()
        for connection in self._connections:
            connection.send(value)
        return value

    def gather(self, value: Any) -> list | None:
        """Return the values of all processes in rank order on rank 0, and None on other ranks."""
        if self.rank > 0:
            self._connections[0].send(value)
            return None
        return [value, *(connection.recv() for connection in self._connections)]

    def max(self, number: int) -> int:
        """Return the largest of the numbers of all processes."""
        return self.broadcast(max(self.gather(number) or [number]))

    def all_reduce(self, array: np.ndarray) -> None:
        """Replace a contiguous array of numbers by its sum over all processes."""
        import numpy as np
        content = array.data.cast("B")
        if self.rank > 0:
            self._connections[0].send_bytes(content)
            self._connections[0].recv_bytes_into(content)
            return
        theirs = np.empty_like(array)
        for connection in self._connections:
            connection.recv_bytes_into(theirs.data.cast("B"))
            array += theirs
        for connection in self._connections:
            connection.send_bytes(content)

    def fail(self, status: int) -> int:
        """End this process at once with the status; msrun then ends the rest, which would wait for it."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


Group = Union[SingleProcess, MpiGroup, MsrunGroup]


@contextlib.contextmanager
def local_rank_zero_first(group: Group) -> Iterator[None]:
    """A context whose block one process per machine completes before the machine's other processes enter it."""
    if group.local_rank > 0:
        group.barrier()
    yield
    if group.local_rank == 0:
        group.barrier()


def check_same(group: Group, describe: Callable[[], dict]) -> None:
    """Check that all processes have the same values.

    Args:
        describe: function that returns a dict {description: value to compare}.

    Raises:
        UserError: on rank 0, naming the first difference; the other ranks wait until they are ended.
    """
    if group.size == 1:
        return
    everyone = group.gather((socket.gethostname(), describe())) or []
    for rank, (host, theirs) in enumerate(everyone):
        first_host, expected = everyone[0]
        different = [description for description in expected if theirs.get(description) != expected[description]]
        if different:
            raise UserError(f"rank {rank} on {host} has another {different[0]} than rank 0 on {first_host}; make them the "
                            "same everywhere.")
    group.barrier()


def program_digest() -> str:
    """Return a digest of the program's files and MindSpore's version."""
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
    check_same(group, lambda: {"version of this program or of MindSpore": program_digest(),
                               "configuration": json.dumps(settings, sort_keys=True)})
