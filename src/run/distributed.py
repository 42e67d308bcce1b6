"""The process group: one process, or several processes that mpirun (mpi4py) or msrun (TCP) started, and their communication."""
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
from typing import TYPE_CHECKING, Any, Callable

from src.errors import UserError

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).resolve().parents[2]
KEY_BYTES = 32  # length of the secret with which msrun's processes authenticate each other


def join_processes() -> Group:
    """Return the group that this process belongs to.

    Raises a UserError if mpirun started several processes, but mpi4py is missing or belongs to another MPI; if msrun started
    processes on several machines without their node ranks; or if a rank table for several processes cannot be read.
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
        if MPI.COMM_WORLD.size != started:
            raise RuntimeError(f"it sees {MPI.COMM_WORLD.size}")
    except (ImportError, RuntimeError) as error:
        raise UserError(f"mpirun started {started} processes, but mpi4py cannot be used ({error}); install an MPI and "
                        "mpi4py that belong together, with pip install -r requirements.txt.") from error
    return MpiGroup(MPI)


def _adopt_rank_table(path):
    """Set msrun's variables from the variables that ModelArts sets per card; rank 0 starts msrun's scheduler. MindSpore 2.10 no
    longer starts from a rank table, and it compiles differently if RANK_TABLE_FILE is set."""
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


class Group:
    """This process and the processes that were started with it; if one fails, all end.

    This class is for a single process. Its subclasses override `broadcast` and `gather`, which other methods use.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: number of this process among the processes of this machine, from 0.
        local_size: number of processes of this machine.
    """

    rank, size, local_rank, local_size = 0, 1, 0, 1

    def connect(self, device_target: str) -> None:
        """Connect the processes after their device is set. Call it before the methods below and before creating tensors."""

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0."""
        return value

    def gather(self, value: Any) -> list | None:
        """Return the values of all processes in rank order on rank 0, and None on other ranks."""
        return [value]

    def barrier(self) -> None:
        """Wait until all processes have called this method."""
        self.broadcast(self.gather(None))

    def max(self, number: int) -> int:
        """Return the largest of the numbers of all processes."""
        return self.broadcast(max(self.gather(number) or [number]))

    def all_reduce(self, array: np.ndarray) -> None:
        """Replace a contiguous array of numbers by its sum over all processes."""

    def fail(self, status: int) -> int:
        """End this process with the status, and thereby all others, which would wait for it. A single process only returns it."""
        return status


class SingleProcess(Group):
    """The process group of a single process."""


class MpiGroup(Group):
    """One of several processes that mpirun started. `mpi` is the module mpi4py.MPI."""

    def __init__(self, mpi: Any):
        self._mpi, self._comm = mpi, mpi.COMM_WORLD
        self.rank, self.size = self._comm.rank, self._comm.size
        machine = self._comm.Split_type(mpi.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = machine.rank, machine.size

    def connect(self, device_target: str) -> None:
        """Initialise the collectives of the selected device: HCCL on Ascend, NCCL on GPU; the CPU uses MPI only."""
        if device_target != "CPU":
            from mindspore.communication import init
            init()

    def broadcast(self, value: Any) -> Any:
        return self._comm.bcast(value)

    def gather(self, value: Any) -> list | None:
        return self._comm.gather(value)

    def all_reduce(self, array: np.ndarray) -> None:
        self._comm.Allreduce(self._mpi.IN_PLACE, array)

    def fail(self, status: int) -> int:
        self._comm.Abort(status)
        return status


class MsrunGroup(Group):
    """One of several processes that MindSpore's launcher msrun started. local_size is known after `connect`.

    Each process communicates with rank 0 through a TCP connection, on any device. MindSpore's collectives on the CPU fail if a
    process arrives 30 s later than another, as a process that scores an evaluation may.
    If msrun has not numbered the processes, the constructor raises a UserError.
    """

    def __init__(self) -> None:
        self._schedules = os.environ["MS_ROLE"] == "MS_SCHED"
        number = os.environ.get("MS_NODE_ID", "0" if self._schedules else None)
        if number is None:
            raise UserError("msrun has given this process no rank: on several machines, give each of them its --node_rank.")
        self.rank, self.size = int(number), int(os.environ["MS_WORKER_NUM"])
        self.local_rank = int(os.environ.get("DEVICE_ID", 0))
        self._connections: list[Connection] = []  # on rank 0: to all other ranks in order; elsewhere: to rank 0
        # Linux then sends SIGTERM when msrun ends for any reason. Without --join=True, msrun ends first and its processes go on.
        parent = os.getppid()
        with contextlib.suppress(OSError):  # msrun has ended, or /proc does not exist
            if re.search(rb"\0--join[=\0]True\0", Path(f"/proc/{parent}/cmdline").read_bytes()):
                ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
                if os.getppid() != parent:  # msrun ended before that call
                    os.kill(os.getpid(), signal.SIGTERM)

    def connect(self, device_target: str) -> None:
        """Connect the processes. msrun also starts a scheduler that connects them, which ends here, after all of them.
        If rank 0 is not on the machine that msrun's --master_addr names, a UserError is raised.
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
            given = os.environ.get("FASTER_RCNN_PORT", "0")
            try:
                listener = Listener((host, int(given)), backlog=self.size, authkey=key)
            except (OSError, ValueError, OverflowError) as error:
                raise UserError(f"rank 0 cannot listen at {host}, port {given} ({getattr(error, 'strerror', error)}): give "
                                "--node_rank=0 to msrun on the machine that --master_addr names; the environment variable "
                                "FASTER_RCNN_PORT, if set, must be a free port.") from error
            port = int(listener.address[1])
        shared = Tensor(np.frombuffer(key + port.to_bytes(2, "big"), np.int8))
        distributed.broadcast(shared, 0)  # the collectives of all devices support int8
        if self.rank > 0:
            content = shared.asnumpy().tobytes()
            self._connections = [Client((host, int.from_bytes(content[KEY_BYTES:], "big")), authkey=content[:KEY_BYTES])]
            self._connections[0].send(self.rank)
        else:
            with listener:
                by_rank = {connection.recv(): connection for connection in (listener.accept() for _ in range(1, self.size))}
            self._connections = [by_rank[rank] for rank in range(1, self.size)]

    def broadcast(self, value: Any) -> Any:
        if self.rank > 0:
            return self._connections[0].recv()
        for connection in self._connections:
            connection.send(value)
        return value

    def gather(self, value: Any) -> list | None:
        if self.rank > 0:
            self._connections[0].send(value)
            return None
        return [value, *(connection.recv() for connection in self._connections)]

    def all_reduce(self, array: np.ndarray) -> None:
        content = array.data.cast("B")
        if self.rank > 0:
            self._connections[0].send_bytes(content)
            self._connections[0].recv_bytes_into(content)
            return
        theirs = array.copy()
        for connection in self._connections:
            connection.recv_bytes_into(theirs.data.cast("B"))
            array += theirs
        for connection in self._connections:
            connection.send_bytes(content)

    def fail(self, status: int) -> int:
        os._exit(status)  # msrun then ends the other processes


@contextlib.contextmanager
def local_rank_zero_first(group: Group) -> Iterator[None]:
    """A context whose block one process per machine completes before the machine's other processes enter it."""
    if group.local_rank > 0:
        group.barrier()
    yield
    if group.local_rank == 0:
        group.barrier()


def check_same(group: Group, describe: Callable[[], dict]) -> None:
    """Check that all processes have the same values, {description: value}, which `describe` returns.

    Rank 0 raises a UserError that names the first difference, while the remaining ranks wait until they are ended.
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
