"""Replacing plain cells of the network by those of the C++ kernels."""
from __future__ import annotations

from mindspore import nn

from src.cpu_kernels.library import library
from src.cpu_kernels.operators import (
    KernelBilinearUpsample,
    KernelConv2d,
    KernelFunctionalConv2d,
    KernelMatcher,
    KernelNMS,
    KernelPreprocess,
    KernelRoIAlign,
    KernelScaledWeight,
    KernelTrainingFeatures,
)
from src.models.faster_rcnn import TrainingFeatures
from src.models.fpn import BilinearUpsample
from src.models.matcher import Matcher
from src.models.preprocess import Preprocess
from src.models.proposals import BatchedNMS
from src.models.residual import FunctionalConv2d, ScaledWeight
from src.models.roi_align import OperatorRoIAlign, RoIAlign

KERNELS = {BilinearUpsample: KernelBilinearUpsample, BatchedNMS: KernelNMS, RoIAlign: KernelRoIAlign, Matcher: KernelMatcher,
           Preprocess: KernelPreprocess, ScaledWeight: KernelScaledWeight, TrainingFeatures: KernelTrainingFeatures}


def use_kernels(forward: nn.Cell, cfg) -> nn.Cell:
    """Make `forward` run on the kernels where that is possible: on the CPU, with a compiler.

    The results agree with those of the plain operators up to rounding. In mixed precision convolutions are not replaced.

    Returns:
        forward, a TrainingForward or InferenceForward.
    """
    path = library() if cfg.device_target == "CPU" else None
    if path is None:
        return forward
    # Inside this cell the plain one stays, for small inputs.
    for parent in [cell for _, cell in forward.cells_and_names() if not isinstance(cell, KernelFunctionalConv2d)]:
        for name, cell in list(parent.name_cells().items()):
            if type(cell) in KERNELS and not _keeps_operator(cell):
                _replace(parent, name, KERNELS[type(cell)](path, cell))
            elif not cfg.mix and type(cell) is FunctionalConv2d and _is_plain_3x3(cell.conv2d):
                _replace(parent, name, KernelFunctionalConv2d(path, cell))
            elif not cfg.mix and type(cell) is nn.Conv2d and _is_plain_3x3(cell.conv2d):
                _replace(parent, name, KernelConv2d(path, cell))
    return forward


def _keeps_operator(cell):
    """Whether these are features of a training that shall be pooled by MindSpore's operator, which has no kernel here."""
    return type(cell) is TrainingFeatures and type(cell.roi_align.pool) is OperatorRoIAlign


def _is_plain_3x3(conv2d):
    """Whether the operator is a 3x3 convolution with padding 1 and stride 1 or 2, without dilation or groups."""
    stride = set(conv2d.stride[-2:])
    one_around = set(conv2d.padding) == {1} if conv2d.pad_mode == "pad" else conv2d.pad_mode == "same" and stride == {1}
    return (tuple(conv2d.kernel_size) == (3, 3) and stride in ({1}, {2}) and set(conv2d.dilation) == {1}
            and conv2d.group == 1 and one_around)


def _replace(parent, name, cell):
    """Set the child `name` of `parent`; its parameters keep their names, which MindSpore would prefix again."""
    names = [(parameter, parameter.name) for parameter in cell.get_parameters()]
    if isinstance(parent, nn.CellList):
        parent[int(name)] = cell
    else:
        setattr(parent, name, cell)
    for parameter, kept in names:
        parameter.name = kept
