"""Mixed precision: convolutions and dense layers in float16, everything else in float32."""
import mindspore as ms
from mindspore import nn

from src.models.residual import NORMS, Convolution


def to_mixed_precision(network):
    """Make the convolutions and dense layers of `network` compute in float16; weights stay float32."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, (nn.Conv2d, nn.Dense)):
            cell.to_float(ms.float16)
        elif isinstance(cell, Convolution):
            cell.compute_dtype = ms.float16
        elif isinstance(cell, NORMS):
            cell.to_float(ms.float32)
    return network
