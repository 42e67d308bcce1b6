"""Translate the detector's cells into programs for the kernel in network.cc."""
from __future__ import annotations

from mindspore import nn

from src.cpu_kernels.program import NATIVE, PLANES, ROWS, Program
from src.models.faster_rcnn import FeaturesAndRPN
from src.models.fpn import FPN, BilinearUpsample
from src.models.residual import Chain, ConvBatchNorm, PaddedMaxPool, ResidualBlock
from src.models.roi_head import BoxHead
from src.models.rpn import RPNPatchHead


class NotLoweredError(Exception):
    """The cell has a type that cannot be translated."""


def features_and_rpn_kernel(plain: FeaturesAndRPN, mixed: bool, training: bool) -> Program:
    """Return the program of the first stage: images (B, 3, H, W) -> the outputs of `_pyramid_and_rpn`.

    Raises:
            NotLoweredError: a layer of the backbone cannot be translated; the layers of a ResNet can.
    """
    program, network = Program(mixed, training), plain.network
    x, features = program.add_input(3), []
    for part in network.backbone.parts:
        x = lower(part, program, x, training)
        features.append(x)
    _pyramid_and_rpn(network, program, [features[i] for i in network.level_index])
    return program


def after_backbone(plain: FeaturesAndRPN, mixed: bool, training: bool) -> Program:
    """Return the program after the backbone: the features that the pyramid reads, (B, C_i, H_i, W_i) -> `_pyramid_and_rpn`."""
    program, network = Program(mixed, training), plain.network
    features = [program.add_input(lateral.in_channels, gradient=training) for lateral in network.fpn.lateral]
    _pyramid_and_rpn(network, program, features)
    return program


def _pyramid_and_rpn(network, program, features):
    """Add outputs: levels with channels last in memory; per level, RPN logits (B, H_i, W_i, A) and deltas (B, H_i, W_i, 4 A)."""
    levels, rpn = pyramid(network.fpn, program, features), network.rpn_head
    for level in levels:
        program.add_output(level, NATIVE)
    for level in levels:
        # Gradients do not flow through the proposals; the RPN is trained on patches.
        hidden = program.convolution(level, rpn.conv, relu=True, constant=True)
        for conv in (rpn.objectness, rpn.deltas):
            program.add_output(program.convolution(hidden, conv, wide=True, constant=True), ROWS, differentiable=False)


def patch_outputs(plain: RPNPatchHead, mixed: bool, training: bool) -> Program:
    """Return the program of `RPNPatchHead`."""
    program = Program(mixed, training)
    hidden = program.convolution(program.add_input(plain.patch_conv.in_channels, gradient=training), plain.patch_conv, relu=True)
    for conv in (plain.objectness, plain.deltas):
        program.add_output(program.convolution(hidden, conv, wide=True), ROWS)
    return program


def convolution(conv: nn.Conv2d, mixed: bool) -> Program:
    """Return the program of a single convolution, (B, C, H, W) -> (B, K, H', W')."""
    program = Program(mixed, trained=True)
    program.add_output(program.convolution(program.add_input(conv.in_channels, gradient=True), conv), PLANES)
    return program


def conv_batch_norm(plain: ConvBatchNorm, mixed: bool, training: bool) -> Program:
    """Return the program of `ConvBatchNorm`, with batch statistics in training and with stored statistics otherwise."""
    program = Program(mixed, trained=True)
    value = _conv_batch_norm(plain, program, program.add_input(plain.conv.in_channels, gradient=True), training)
    program.add_output(value, PLANES)
    return program


def box_head(plain: BoxHead, mixed: bool, training: bool) -> Program:
    """Return the program: pooled features (M, C * h * w) -> float32 class logits (1, 1, M, K + 1) and deltas (1, 1, M, 4 K)."""
    program = Program(mixed, training)
    hidden = program.add_input(plain.fc1.in_channels, rows=True, gradient=training)
    for dense in (plain.fc1, plain.fc2):
        hidden = program.convolution(hidden, dense, relu=True)
    for dense in (plain.classes, plain.deltas):
        program.add_output(program.convolution(hidden, dense, wide=True), ROWS)
    return program


def lower(cell: nn.Cell, program: Program, x: int, training: bool) -> int:
    """Add the layers of a part of the backbone and return its value. Training may already have replaced its cells by kernels."""
    cell = getattr(cell, "plain", cell)
    if type(cell) is Chain:
        for item in cell.cells_in_order:
            x = lower(item, program, x, training)
        return x
    if type(cell) is ConvBatchNorm:
        return _conv_batch_norm(cell, program, x, training)
    if type(cell) is nn.ReLU:
        return program.relu(x)
    if type(cell) is ResidualBlock:
        return _residual_block(cell, program, x, training)
    if type(cell) is PaddedMaxPool:
        return program.max_pool(x, same=False)
    if type(cell) is nn.MaxPool2d and (cell.kernel_size, cell.stride, cell.pad_mode) == (3, 2, "SAME"):
        return program.max_pool(x, same=True)
    raise NotLoweredError(type(cell).__name__)


def _conv_batch_norm(cell, program, x, training, **options):
    cell = getattr(cell, "plain", cell)
    if training and cell.norm.use_batch_statistics is not False:
        return program.batch_norm(program.convolution(x, cell.conv), cell.norm, **options)
    return program.convolution(x, cell.conv, cell.norm, **options)


def _residual_block(block, program, x, training):
    out, *convolutions = x, *block.convolutions
    for convolution in convolutions[:-1]:
        out = _conv_batch_norm(convolution, program, out, training, relu=True)
    identity = x if block.shortcut is None else lower(block.shortcut, program, x, training)
    return _conv_batch_norm(convolutions[-1], program, out, training, relu=True, addend=identity)


def pyramid(fpn: FPN, program: Program, features: list[int]) -> list[int]:
    """Add the layers of the pyramid and return its levels."""
    bilinear = type(fpn.upsample) is BilinearUpsample
    merged = program.convolution(features[-1], fpn.lateral[len(features) - 1])
    levels = [program.convolution(merged, fpn.output[len(features) - 1])]
    for i in range(len(features) - 2, -1, -1):
        merged = program.merge(program.convolution(features[i], fpn.lateral[i]), merged, bilinear)
        levels.insert(0, program.convolution(merged, fpn.output[i]))
    for _ in range(fpn.extra_levels):
        levels.append(program.subsample(levels[-1]))
    return levels
