"""How the gradients of several processes become one: in the graph on Ascend and GPU, on the host on the CPU."""
from __future__ import annotations

import time
from collections import Counter

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from src.distributed import Group

EXCHANGES = 3  # of a step on Ascend and GPU


def build_all_reduce(group: Group, device_target: str, parameters: list[Parameter]) -> AllReduce:
    """The all-reduce of the losses, and of the gradients of `parameters`, over the processes of `group`."""
    if group.size == 1:
        return AllReduce()
    if device_target == "CPU":
        return HostAllReduce(group)
    losses = Parameter(Tensor(0.0, ms.float32), name="losses")  # in a separate exchange
    # Read by the reducer's constructor.
    ms.set_auto_parallel_context(all_reduce_fusion_config=[0, *(end + 1 for end in fusion_ends(parameters))])
    return AllReduce(nn.DistributedGradReducer([losses, *parameters], True, group.size))


def fusion_ends(parameters: list[Parameter]) -> list[int]:
    """Numbers of the parameters that end an exchange, all but the last, where the gradients travel in EXCHANGES ones of about as
    many bytes.

    MindSpore waits for all gradients of an exchange before it begins, and by itself makes a single one. The order of the
    parameters is that of the forward pass, so the gradients of the last ones are ready first: they travel while the backward
    pass goes on. MindSpore counts from 0, and the parameter of a number belongs to the exchange that it ends.
    """
    ends = np.cumsum([parameter.size for parameter in parameters])  # all travel as float32
    return sorted({int(np.abs(ends - ends[-1] * part / EXCHANGES).argmin()) for part in range(1, EXCHANGES)})


class AllReduce:
    """The all-reduce of the graph, which is MindSpore's over HCCL or NCCL, or none for a single process.

    Attributes:
        in_graph: cell from a tuple of losses and gradients to their means, to be called in the graph that computes them, or None.
    """

    def __init__(self, in_graph: nn.Cell | None = None):
        self.in_graph = in_graph

    def on_host(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the step goes on with: losses, gradients and what follows them, of the same shapes."""
        return tensors

    def take_seconds(self) -> dict[str, float]:
        """Seconds since the last call by what they were spent on."""
        return {}


class HostAllReduce(AllReduce):
    """One all-reduce of all gradients in one buffer, through the process group.

    MindSpore's own collectives on the CPU need a scheduler process, and took 15 times as long.
    """

    def __init__(self, group: Group):
        super().__init__()
        self.group = group
        self.buffer = np.empty(0, np.float32)
        self.seconds = Counter()

    def on_host(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Means over all processes, in the buffer: they are those of this step until the next one."""
        arrays = [tensor.asnumpy() for tensor in tensors]
        copying = time.perf_counter()
        ends = np.cumsum([array.size for array in arrays])
        if not self.buffer.size:
            self.buffer = np.empty(ends[-1], np.float32)
        np.concatenate([array.reshape(-1) for array in arrays], out=self.buffer)
        waiting = time.perf_counter()
        self.group.barrier()
        reducing = time.perf_counter()
        self.group.all_reduce(self.buffer)
        self.buffer /= self.group.size
        means = [part.reshape(array.shape) for part, array in zip(np.split(self.buffer, ends[:-1]), arrays)]
        self.seconds.update({"rank_wait": reducing - waiting, "all_reduce": time.perf_counter() - reducing + waiting - copying})
        return tuple(map(Tensor.from_numpy, means))

    def take_seconds(self) -> dict[str, float]:
        """Seconds since the last call: `all_reduce` itself, and `rank_wait` for the slowest process."""
        seconds, self.seconds = dict(self.seconds), Counter()
        return seconds


def broadcast_parameters(group: Group, parameters: list[Parameter]) -> None:
    """Give all processes the values that rank 0 has."""
    if group.size == 1:
        return
    arrays = group.broadcast([parameter.asnumpy() for parameter in parameters] if group.rank == 0 else None)
    if group.rank > 0:
        for parameter, array in zip(parameters, arrays):
            parameter.set_data(Tensor(array))
