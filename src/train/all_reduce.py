"""All-reduce of the gradients over several processes: in the graph on Ascend and GPU, on the host on the CPU."""
from __future__ import annotations

import time
from collections import Counter

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from src.run.distributed import Group

EXCHANGES = 3  # number of all-reduce buckets per step on Ascend and GPU


def build_all_reduce(group: Group, device_target: str, parameters: list[Parameter]) -> AllReduce:
    """Return the all-reduce of the losses and of the gradients of `parameters` over the processes of `group`."""
    if group.size == 1:
        return AllReduce()
    if device_target == "CPU":
        return HostAllReduce(group)
    losses = Parameter(Tensor(0.0, ms.float32), name="losses")  # reduced in a separate bucket
    # The constructor of the reducer reads this setting.
    ms.set_auto_parallel_context(all_reduce_fusion_config=[0, *(end + 1 for end in fusion_ends(parameters))])
    return AllReduce(nn.DistributedGradReducer([losses, *parameters], True, group.size))


def fusion_ends(parameters: list[Parameter]) -> list[int]:
    """Return the index of the last parameter of each all-reduce bucket except the last bucket.

    The gradients are split into EXCHANGES buckets of about equal size in bytes. By default, MindSpore uses a single bucket, and
    reduces it when all its gradients are ready. Parameters are in the order of the forward pass. The last gradients are therefore
    ready first, and are reduced during the rest of the backward pass. Indices start at 0.
    """
    ends = np.cumsum([parameter.size for parameter in parameters])  # all gradients are float32
    return sorted({int(np.abs(ends - ends[-1] * part / EXCHANGES).argmin()) for part in range(1, EXCHANGES)})


class AllReduce:
    """The all-reduce inside the graph: MindSpore's, over HCCL or NCCL. A single process needs none.

    Attributes:
        in_graph: cell that maps a tuple of losses and gradients to their means, or None. The graph that computes them calls it.
    """

    def __init__(self, in_graph: nn.Cell | None = None):
        self.in_graph = in_graph

    def on_host(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the tensors to use in the rest of the step, with the same shapes: losses, gradients and optional sums."""
        return tensors

    def take_seconds(self) -> dict[str, float]:
        """Return the seconds spent since the last call, by activity, and reset them."""
        return {}


class HostAllReduce(AllReduce):
    """A single all-reduce of all gradients, in one buffer, through the process group.

    MindSpore's collectives for the CPU need a scheduler process and took 15x as long.
    """

    def __init__(self, group: Group):
        super().__init__()
        self.group = group
        self.buffer = np.empty(0, np.float32)
        self.seconds = Counter()

    def on_host(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the means over all processes. They share the memory of the buffer, which the next step overwrites."""
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
        """Return and reset the seconds since the last call: `all_reduce`, and `rank_wait` for waiting for the slowest rank."""
        seconds, self.seconds = dict(self.seconds), Counter()
        return seconds


def broadcast_parameters(group: Group, parameters: list[Parameter]) -> None:
    """Copy the values of rank 0 to all other processes."""
    if group.size == 1:
        return
    arrays = group.broadcast([parameter.asnumpy() for parameter in parameters] if group.rank == 0 else None)
    if group.rank > 0:
        for parameter, array in zip(parameters, arrays):
            parameter.set_data(Tensor(array))
