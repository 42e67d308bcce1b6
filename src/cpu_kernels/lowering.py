"""Translate the detector's cells into kernel graphs for the kernel in network.cc."""
from __future__ import annotations

from typing import Any

from mindspore import nn

from src.cpu_kernels.kernel_graph import NATIVE, PLANES, ROWS, KernelGraph
from src.models.backbone import Chain, ConvBatchNorm, PaddedMaxPool, ResidualBlock
from src.models.faster_rcnn import FeaturesAndRPN
from src.models.fpn import FPN
from src.models.roi_head import BoxHead
from src.models.rpn import RPNPatchHead


class NotLoweredError(Exception):
    """The cell has a type that cannot be translated."""


def features_and_rpn_kernel(plain: FeaturesAndRPN, mixed: bool, training: bool) -> KernelGraph:
    """Return the graph of the first stage: images (B, 3, H, W) -> the outputs of `_pyramid_and_rpn`.

    Raises:
        NotLoweredError: a layer of the backbone cannot be translated; the layers of a ResNet can.
    """
    graph, network = KernelGraph(mixed, training), plain.network
    x, features = graph.add_input(3), []
    for part in network.backbone.parts:
        x = lower(part, graph, x, training)
        features.append(x)
    _pyramid_and_rpn(network, graph, [features[i] for i in network.level_index], training)
    return graph


def after_backbone(plain: FeaturesAndRPN, mixed: bool, training: bool) -> KernelGraph:
    """Return the graph after the backbone: the features that the pyramid reads, (B, C_i, H_i, W_i) -> `_pyramid_and_rpn`."""
    graph, network = KernelGraph(mixed, training), plain.network
    features = [graph.add_input(getattr(lateral, "conv", lateral).in_channels, gradient=training)
                for lateral in network.fpn.lateral]
    _pyramid_and_rpn(network, graph, features, training)
    return graph


def _pyramid_and_rpn(network, graph, features, training):
    """Add outputs: levels with channels last in memory; per level, RPN logits (B, H_i, W_i, A) and deltas (B, H_i, W_i, 4 A)."""
    levels, rpn = pyramid(network.fpn, graph, features, training), network.rpn_head
    for level in levels:
        graph.add_output(level, NATIVE)
    for level in levels:
        # Gradients do not flow through the proposals; the RPN is trained on patches.
        hidden = graph.convolution(level, rpn.conv, relu=True, constant=True)
        if rpn.conv2 is not None:
            hidden = graph.convolution(hidden, rpn.conv2, relu=True, constant=True)
        for conv in (rpn.objectness, rpn.deltas):
            graph.add_output(graph.convolution(hidden, conv, wide=True, constant=True), ROWS, differentiable=False)


def patch_outputs(plain: RPNPatchHead, mixed: bool, training: bool) -> KernelGraph:
    """Return the graph of `RPNPatchHead`. With a second convolution, the second input is added to the output of the first one."""
    graph = KernelGraph(mixed, training)
    patches, second = graph.add_input(plain.patch_conv.in_channels, gradient=training), plain.patch_conv2
    if second is None:
        hidden = graph.convolution(patches, plain.patch_conv, relu=True)
    else:
        addend = graph.add_input(second.in_channels, gradient=training)
        hidden = graph.convolution(patches, plain.patch_conv, relu=True, addend=addend)
        hidden = graph.convolution(hidden, second, relu=True)
    for conv in (plain.objectness, plain.deltas):
        graph.add_output(graph.convolution(hidden, conv, wide=True), ROWS)
    return graph


def convolution(plain: nn.Conv2d | ConvBatchNorm, mixed: bool, training: bool) -> KernelGraph:
    """Return the graph of a single convolution, (B, C, H, W) -> (B, K, H', W'). A BatchNorm has batch statistics in training and
    stored statistics otherwise."""
    graph, is_conv = KernelGraph(mixed, trained=True), isinstance(plain, nn.Conv2d)
    x = graph.add_input((plain if is_conv else plain.conv).in_channels, gradient=True)
    graph.add_output(graph.convolution(x, plain) if is_conv else _conv_batch_norm(plain, graph, x, training), PLANES)
    return graph


def box_convolutions(plain: BoxHead, mixed: bool, training: bool) -> KernelGraph:
    """Return the graph of the convolutions of a box head, (M, C, h, w) -> (M, C, h, w)."""
    graph = KernelGraph(mixed, training)
    x = graph.add_input(plain.convs[0].conv.in_channels, gradient=training)
    for conv in plain.convs:
        x = _conv_batch_norm(conv, graph, x, training, relu=True)
    graph.add_output(x, PLANES)
    return graph


def box_head(plain: BoxHead, mixed: bool, training: bool) -> KernelGraph:
    """Return the graph of the dense layers: features (M, C * h * w) -> float32 logits (1, 1, M, K + 1), deltas (1, 1, M, 4 K)."""
    graph = KernelGraph(mixed, training)
    hidden = graph.add_input(plain.fc1.in_channels, rows=True, gradient=training)
    for dense in (plain.fc1, *([plain.fc2] if plain.fc2 is not None else [])):
        hidden = graph.convolution(hidden, dense, relu=True)
    for dense in (plain.classes, plain.deltas):
        graph.add_output(graph.convolution(hidden, dense, wide=True), ROWS)
    return graph


def lower(cell: nn.Cell, graph: Any, x: Any, training: bool) -> Any:
    """Add the layers of a part of the network and return its value. Training may already have replaced its cells by kernels.

    `graph` is a `KernelGraph` with values of type int, or a `src.export.onnx_graph.Graph` with values of type str.
    """
    cell = getattr(cell, "plain", cell)
    if type(cell) is Chain:
        for item in cell.cells_in_order:
            x = lower(item, graph, x, training)
        return x
    if type(cell) is nn.Conv2d:
        return graph.convolution(x, cell)
    if type(cell) is ConvBatchNorm:
        return _conv_batch_norm(cell, graph, x, training)
    if type(cell) is nn.ReLU:
        return graph.relu(x)
    if type(cell) is ResidualBlock:
        return _residual_block(cell, graph, x, training)
    if type(cell) is PaddedMaxPool:
        return graph.max_pool(x, same=False)
    if type(cell) is nn.MaxPool2d and (cell.kernel_size, cell.stride, cell.pad_mode) == (3, 2, "SAME"):
        return graph.max_pool(x, same=True)
    raise NotLoweredError(type(cell).__name__)


def _conv_batch_norm(cell, graph, x, training, **options):
    cell = getattr(cell, "plain", cell)
    if training and cell.norm.use_batch_statistics is not False:
        return graph.batch_norm(graph.convolution(x, cell.conv), cell.norm, **options)
    return graph.convolution(x, cell.conv, cell.norm, **options)


def _residual_block(block, graph, x, training):
    out, *convolutions = x, *block.convolutions
    for convolution in convolutions[:-1]:
        out = _conv_batch_norm(convolution, graph, out, training, relu=True)
    identity = x if block.shortcut is None else lower(block.shortcut, graph, x, training)
    return _conv_batch_norm(convolutions[-1], graph, out, training, relu=True, addend=identity)


def pyramid(fpn: FPN, graph: Any, features: list, training: bool) -> list:
    """Add the layers of the pyramid and return its levels; for `graph` see `lower`."""
    bilinear = fpn.upsample_mode == "bilinear"
    merged = lower(fpn.lateral[len(features) - 1], graph, features[-1], training)
    levels = [lower(fpn.output[len(features) - 1], graph, merged, training)]
    for i in range(len(features) - 2, -1, -1):
        merged = graph.merge(lower(fpn.lateral[i], graph, features[i], training), merged, bilinear)
        levels.insert(0, lower(fpn.output[i], graph, merged, training))
    for _ in range(fpn.extra_levels):
        levels.append(graph.subsample(levels[-1]))
    return levels
