"""BatchNorm's running statistics, which differ between processes unless BatchNorm is synchronised.

They are averaged over the processes at the end of each epoch. A checkpoint inside an epoch stores the statistics of every rank,
so that a resumed run computes the same results as an uninterrupted run.
"""
from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn

from src.checkpoint import STATISTICS
from src.models.residual import NORMS
from src.run.distributed import Group


def average_statistics(group: Group, network: nn.Cell) -> None:
    """Replace the statistics of each process by their mean over all processes."""
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
