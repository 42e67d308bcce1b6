"""Putting the C++ kernels in the place of the cells that they speed up."""
from mindspore import nn

from src.kernels.library import library
from src.kernels.operators import KernelConv2d, KernelConvolution, KernelMatch, KernelPatches, KernelPool, KernelScaledWeight
from src.models.matching import Match
from src.models.patches import Patches
from src.models.residual import Convolution, ScaledWeight
from src.models.roi_align import LevelPool


def use_kernels(forward, cfg):
    """Make `forward`, a cell of plain operators, run on the kernels where they can: on the CPU, with a compiler.

    The results agree with the plain operators' up to rounding. In mixed precision convolutions stay as they are.

    Args:
        forward: TrainingForward or InferenceForward; cfg: the configuration.

    Returns:
        forward.
    """
    path = library() if cfg.device_target == "CPU" else None
    if path is None:
        return forward
    kinds = {LevelPool: KernelPool, Match: KernelMatch, Patches: KernelPatches, ScaledWeight: KernelScaledWeight}
    # A kernel may keep the plain cell for what it does not do.
    for parent in [cell for _, cell in forward.cells_and_names() if not isinstance(cell, KernelConvolution)]:
        for name, cell in list(parent.name_cells().items()):
            if type(cell) in kinds:
                _replace(parent, name, kinds[type(cell)](path, cell))
            elif not cfg.mix and type(cell) is Convolution and _is_plain_3x3(cell.conv2d):
                _replace(parent, name, KernelConvolution(path, cell))
            elif not cfg.mix and type(cell) is nn.Conv2d and _is_plain_3x3(cell.conv2d):
                _replace(parent, name, KernelConv2d(path, cell))
    return forward


def _is_plain_3x3(conv2d):
    """Whether the operator convolves with 3x3 weights at stride 1 and keeps the size."""
    keeps_size = conv2d.pad_mode == "same" or (conv2d.pad_mode == "pad" and set(conv2d.padding) == {1})
    return (tuple(conv2d.kernel_size) == (3, 3) and set(conv2d.stride) == {1} and set(conv2d.dilation) == {1}
            and conv2d.group == 1 and keeps_size)


def _replace(parent, name, cell):
    """Make `cell` the child `name` of `parent`; its parameters keep their names, which MindSpore would prefix again."""
    names = [(parameter, parameter.name) for parameter in cell.get_parameters()]
    if isinstance(parent, nn.CellList):
        parent[int(name)] = cell
    else:
        setattr(parent, name, cell)
    for parameter, kept in names:
        parameter.name = kept
