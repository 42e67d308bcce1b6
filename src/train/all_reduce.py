"""How the gradients of several processes become one: in the graph on Ascend and GPU, on the host on the CPU."""
from __future__ import annotations

import time

import numpy as np
from mindspore import Parameter, Tensor, nn

from src.distributed import Group


def build_all_reduce(group: Group, device_target: str, parameters: list[Parameter]) -> NoAllReduce:
    """The all-reduce of the gradients of `parameters` over the processes of `group`."""
    if group.size == 1:
        return NoAllReduce()
    return HostAllReduce(group) if device_target == "CPU" else GraphAllReduce(group, parameters)


class _Unchanged(nn.Cell):
    """Gradients as they are."""

    def construct(self, gradients):
        return gradients


class NoAllReduce:
    """For a single process.

    Attributes:
        in_graph: cell from a tuple of gradients to a tuple of gradients, to be called in the graph that computes them.
    """

    def __init__(self):
        self.in_graph: nn.Cell = _Unchanged()

    def on_host(self, gradients, *others: Tensor) -> tuple:
        """What the step goes on with: gradients, and the other tensors as numpy arrays."""
        return gradients, *(tensor.asnumpy() for tensor in others)

    def take_seconds(self) -> dict[str, float]:
        """Seconds since the last call by what they were spent on."""
        return {}


class GraphAllReduce(NoAllReduce):
    """MindSpore's own all-reduce over HCCL or NCCL, as part of the graph; losses stay each process's own."""

    def __init__(self, group: Group, parameters: list[Parameter]):
        super().__init__()
        self.in_graph = nn.DistributedGradReducer(parameters, True, group.size)


class HostAllReduce(NoAllReduce):
    """One all-reduce of all gradients in one buffer, through MPI.

    MindSpore's own collectives on the CPU need a scheduler process, and took 15 times as long.
    """

    def __init__(self, group: Group):
        super().__init__()
        self.group = group
        self.buffer = np.empty(0, np.float32)
        self.seconds: dict[str, float] = {}

    def on_host(self, gradients, *others: Tensor) -> tuple:
        """Means over all processes; see `NoAllReduce.on_host`."""
        arrays = [tensor.asnumpy() for tensor in (*gradients, *others)]
        copying = time.perf_counter()
        if not self.buffer.size:
            self.buffer = np.empty(sum(array.size for array in arrays), np.float32)
        np.concatenate([array.reshape(-1) for array in arrays], out=self.buffer)
        waiting = time.perf_counter()
        self.group.barrier()
        reducing = time.perf_counter()
        self.group.all_reduce(self.buffer)
        self.buffer /= self.group.size
        means = self._parts([array.shape for array in arrays])
        spent = {"rank_wait": reducing - waiting, "all_reduce": time.perf_counter() - reducing + waiting - copying}
        self.seconds = {name: self.seconds.get(name, 0.0) + seconds for name, seconds in spent.items()}
        count = len(gradients)
        return [Tensor.from_numpy(mean) for mean in means[:count]], *(mean.copy() for mean in means[count:])

    def _parts(self, shapes):
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        return [part.reshape(shape) for part, shape in zip(np.split(self.buffer, ends[:-1]), shapes)]

    def take_seconds(self) -> dict[str, float]:
        """Seconds since the last call: `all_reduce` itself, and `rank_wait` for the slowest process."""
        seconds, self.seconds = self.seconds, {}
        return seconds


def broadcast_parameters(group: Group, parameters: list[Parameter]) -> None:
    """Give all processes the values that rank 0 has."""
    if group.size == 1:
        return
    arrays = group.broadcast([parameter.asnumpy() for parameter in parameters])
    if group.rank > 0:
        for parameter, array in zip(parameters, arrays):
            parameter.set_data(Tensor(array))
