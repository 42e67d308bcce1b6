"""What the processes of a run exchange: gradients, initial values and BatchNorm's running statistics.

The statistics differ between processes unless BatchNorm is synchronised. They are averaged at the end of each epoch. A checkpoint
inside an epoch stores the statistics of every rank, so that a resumed run computes the same results as an uninterrupted run.
"""
from __future__ import annotations

import time

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from src.checkpoint import STATISTICS
from src.models.backbone import NORMS
from src.run.distributed import Group

BUCKETS = 3  # number of all-reduce buckets per step on Ascend and GPU


class AllReduce:
    """The all-reduce of losses and gradients: in the graph on Ascend and GPU, on the host on the CPU, none for one process.

    On the host, the process group reduces one buffer with all gradients. MindSpore's collectives for the CPU need a scheduler
    process and took 15x as long. `parameters` are the trained parameters in the order of the forward pass.

    Attributes:
        in_graph: cell that maps a tuple of losses and gradients to their means, or None. The graph that computes them calls it.
        seconds: seconds of the last step on the host for `all_reduce`, and `rank_wait` for the slowest rank; else empty.
    """

    def __init__(self, group: Group, device_target: str, parameters: list[Parameter]):
        self.group = group
        self.in_graph: nn.Cell | None = None
        self.buffer = np.empty(0, np.float32)
        self.seconds: dict[str, float] = {}
        if group.size > 1 and device_target != "CPU":
            losses = Parameter(Tensor(0.0, ms.float32), name="losses")  # reduced in a separate bucket
            # The constructor of the reducer reads this setting.
            ms.set_auto_parallel_context(all_reduce_fusion_config=[0, *(end + 1 for end in bucket_ends(parameters))])
            self.in_graph = nn.DistributedGradReducer([losses, *parameters], True, group.size)

    def on_host(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the means of the tensors over all processes, unless there is one process or `in_graph` has computed them. The
        means share the memory of the buffer, which the next step overwrites."""
        if self.group.size == 1 or self.in_graph is not None:
            return tensors
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
        self.seconds = {"rank_wait": reducing - waiting, "all_reduce": time.perf_counter() - reducing + waiting - copying}
        return tuple(map(ms.from_numpy, means))


def bucket_ends(parameters: list[Parameter]) -> list[int]:
    """Return the index of the last parameter of each all-reduce bucket except the last bucket.

    The gradients are split into BUCKETS buckets of about equal size. By default, MindSpore uses a single bucket, and reduces it
    when all its gradients are ready. The last parameters of the forward pass have their gradients first, and these are reduced
    during the rest of the backward pass.
    """
    ends = np.cumsum([parameter.size for parameter in parameters])  # all gradients are float32
    return sorted({int(np.abs(ends - ends[-1] * part / BUCKETS).argmin()) for part in range(1, BUCKETS)})


def broadcast_parameters(group: Group, parameters: list[Parameter]) -> None:
    """Copy the values of rank 0 to all other processes."""
    if group.size == 1:
        return
    arrays = group.broadcast([parameter.asnumpy() for parameter in parameters] if group.rank == 0 else None)
    if group.rank > 0:
        for parameter, array in zip(parameters, arrays):
            parameter.set_data(Tensor(array))


def average_statistics(group: Group, network: nn.Cell) -> None:
    """Replace the running statistics of BatchNorm of each process by their mean over all processes."""
    if group.size == 1:
        return
    for parameter in moving_statistics(network, nn.BatchNorm2d):
        mean = parameter.asnumpy().copy()
        group.all_reduce(mean)
        parameter.set_data(Tensor(mean / np.float32(group.size)))


def gather_statistics(group: Group, network: nn.Cell) -> dict[str, Tensor]:
    """Return all statistics that differ from the values of rank 0, by name in the checkpoint. Ranks other than 0 get {}."""
    if group.size == 1:
        return {}
    ranks = group.gather({parameter.name: parameter.asnumpy() for parameter in moving_statistics(network, nn.BatchNorm2d)}) or []
    return {f"{STATISTICS}rank{rank}.{name}": Tensor(array)
            for rank, own in enumerate(ranks) for name, array in own.items() if (array != ranks[0][name]).any()}


def restore_statistics(group: Group, network: nn.Cell, statistics: dict[str, np.ndarray]) -> None:
    """Restore the statistics of each rank. `statistics` is read on rank 0 only; layers that it does not list are unchanged."""
    arrays = group.broadcast(statistics)
    for parameter in moving_statistics(network, nn.BatchNorm2d):
        own = arrays.get(f"{STATISTICS}rank{group.rank}.{parameter.name}")
        if own is not None:
            parameter.set_data(Tensor(own))


def moving_statistics(network: nn.Cell, norms: type | tuple = NORMS) -> list[Parameter]:
    """Return the running means and variances that training updates, for all layers of the classes `norms`."""
    return [parameter for _, cell in network.cells_and_names()
            if isinstance(cell, norms) and cell.use_batch_statistics is not False
            for parameter in (cell.moving_mean, cell.moving_variance)]
