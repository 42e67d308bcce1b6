"""Mixed precision: convolutions and dense layers in float16, everything else in float32."""
from __future__ import annotations

import mindspore as ms
from mindspore import nn

from src.models.residual import NORMS, FunctionalConv2d


def to_mixed_precision(network: nn.Cell) -> nn.Cell:
    """Make the convolutions and dense layers of `network` compute in float16; weights stay float32. Returns `network`."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, (nn.Conv2d, nn.Dense)):
            cell.to_float(ms.float16)
        elif isinstance(cell, FunctionalConv2d):
            cell.compute_dtype = ms.float16
        elif isinstance(cell, NORMS):
            cell.to_float(ms.float32)
    return network
