"""Replace plain cells of the network by cells that call the C++ kernels."""
from __future__ import annotations

from mindspore import nn

from src.config import Config
from src.cpu_kernels.library import library
from src.cpu_kernels.network import KernelBoxHead, KernelConv2d, KernelConvBatchNorm, KernelFeaturesAndRPN, KernelRPNPatchHead
from src.cpu_kernels.operators import KernelMatcher, KernelNMS, KernelPreprocess, KernelRoIAlign, KernelTrainingFeatures
from src.models.faster_rcnn import RoIAndAnchorFeatures, TrainingForward
from src.models.matcher import Matcher
from src.models.preprocess import Preprocess
from src.models.proposals import BatchedNMS
from src.models.residual import ConvBatchNorm
from src.models.roi_align import OperatorRoIAlign, RoIAlign

KERNELS = {BatchedNMS: KernelNMS, RoIAlign: KernelRoIAlign, OperatorRoIAlign: KernelRoIAlign, Matcher: KernelMatcher,
           Preprocess: KernelPreprocess, RoIAndAnchorFeatures: KernelTrainingFeatures}


def use_kernels(forward: nn.Cell, cfg: Config) -> nn.Cell:
    """Let `forward` run on the kernels if possible, which means on the CPU with a C++ compiler.

    The results agree with the plain operators up to rounding. With cfg.mix, products are in bfloat16.

    Returns:
        forward, a TrainingForward or InferenceForward.
    """
    path = library() if cfg.device_target == "CPU" else None
    if path is None:
        return forward
    training = isinstance(forward, TrainingForward)
    for parent in [cell for _, cell in forward.cells_and_names()]:
        for name, cell in list(parent.name_cells().items()):
            if type(cell) in KERNELS:
                _replace(parent, name, KERNELS[type(cell)](path, cell))
    forward.features_and_rpn = KernelFeaturesAndRPN(path, forward.features_and_rpn, cfg.mix, training)
    forward.box_head = KernelBoxHead(path, forward.box_head, cfg.mix, training)
    if training:
        forward.anchor_head.outputs = KernelRPNPatchHead(path, forward.anchor_head.outputs, cfg.mix, training)
    if forward.features_and_rpn.backbone is not None:
        _use_in_backbone(path, forward.features_and_rpn.backbone, cfg.mix)
    return forward


def _use_in_backbone(path, backbone, mixed):
    """Replace the convolutions of the backbone one by one."""
    for parent in [cell for _, cell in backbone.cells_and_names() if not isinstance(cell, (ConvBatchNorm, KernelConvBatchNorm))]:
        for name, cell in list(parent.name_cells().items()):
            if type(cell) is ConvBatchNorm:
                _replace(parent, name, KernelConvBatchNorm(path, cell, mixed))
            elif type(cell) is nn.Conv2d:
                _replace(parent, name, KernelConv2d(path, cell, mixed))


def _replace(parent, name, cell):
    """Set the child `name` of `parent` and keep the parameter names, to which MindSpore would add a second prefix."""
    names = [(parameter, parameter.name) for parameter in cell.get_parameters()]
    if isinstance(parent, nn.CellList):
        parent[int(name)] = cell
    else:
        setattr(parent, name, cell)
    for parameter, kept in names:
        parameter.name = kept
