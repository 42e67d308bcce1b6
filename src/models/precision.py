"""Mixed precision: convolutions and dense layers in float16 or bfloat16, everything else in float32."""
from __future__ import annotations

import mindspore as ms
from mindspore import nn

from src.models.residual import NORMS, FunctionalConv2d


def can_overflow(cfg) -> bool:
    """Whether gradients need a loss scale: float16 ends at 65504, and bfloat16 where float32 does."""
    return cfg.mix and cfg.mix_dtype == "float16"


def to_mixed_precision(network: nn.Cell, dtype: ms.Type = ms.float16) -> nn.Cell:
    """Make the convolutions and dense layers of `network` compute in `dtype`; weights stay float32. Returns `network`."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, (nn.Conv2d, nn.Dense)):
            cell.to_float(dtype)
        elif isinstance(cell, FunctionalConv2d):
            cell.compute_dtype = dtype
        elif isinstance(cell, NORMS):
            cell.to_float(ms.float32)
    return network
