"""Mixed precision: convolutions and dense layers use float16 or bfloat16, all other layers use float32."""
from __future__ import annotations

import mindspore as ms
from mindspore import nn

from src.models.residual import NORMS, FunctionalConv2d


def can_overflow(cfg) -> bool:
    """Return whether gradients need a loss scale: the largest float16 is 65504; bfloat16 has the range of float32."""
    return cfg.mix and cfg.mix_dtype == "float16"


def to_mixed_precision(network: nn.Cell, dtype: ms.Type = ms.float16) -> nn.Cell:
    """Set the convolutions and dense layers of `network` to compute in `dtype`, and return it. Weights stay float32."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, (nn.Conv2d, nn.Dense)):
            cell.to_float(dtype)
        elif isinstance(cell, FunctionalConv2d):
            cell.compute_dtype = dtype
        elif isinstance(cell, NORMS):
            cell.to_float(ms.float32)
    return network
