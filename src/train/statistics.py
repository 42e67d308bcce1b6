"""BatchNorm's running statistics where each of several processes has its own: everywhere but with synchronised BatchNorm.

They become their mean at the end of each epoch. Inside an epoch a checkpoint holds those of every rank, so that a run that
goes on from it computes what it would have without the stop.
"""
from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn

from src.checkpoint import STATISTICS
from src.distributed import Group
from src.models.residual import NORMS


def average_statistics(group: Group, network: nn.Cell) -> None:
    """Make the statistics of each process their mean over all."""
    if group.size == 1:
        return
    for parameter in moving_statistics(network, nn.BatchNorm2d):
        mean = parameter.asnumpy().copy()
        group.all_reduce(mean)
        parameter.set_data(Tensor(mean / np.float32(group.size)))


def gather_statistics(group: Group, network: nn.Cell) -> dict[str, Tensor]:
    """The statistics that differ from those of rank 0 by the names that a checkpoint has for them, on rank 0; {} elsewhere."""
    if group.size == 1:
        return {}
    ranks = group.gather({parameter.name: parameter.asnumpy() for parameter in moving_statistics(network, nn.BatchNorm2d)}) or []
    return {f"{STATISTICS}rank{rank}.{name}": Tensor(array)
            for rank, own in enumerate(ranks) for name, array in own.items() if (array != ranks[0][name]).any()}


def restore_statistics(group: Group, network: nn.Cell, statistics: dict[str, np.ndarray]) -> None:
    """Give each rank its own statistics of a checkpoint, which rank 0 has; those that it does not hold stay as they are."""
    arrays = group.broadcast(statistics)
    for parameter in moving_statistics(network, nn.BatchNorm2d):
        own = arrays.get(f"{STATISTICS}rank{group.rank}.{parameter.name}")
        if own is not None:
            parameter.set_data(Tensor(own))


def moving_statistics(network: nn.Cell, norms: type | tuple = NORMS) -> list[Parameter]:
    """The running means and variances that training updates, of the layers of the classes `norms`."""
    return [parameter for _, cell in network.cells_and_names()
            if isinstance(cell, norms) and cell.use_batch_statistics is not False
            for parameter in (cell.moving_mean, cell.moving_variance)]
