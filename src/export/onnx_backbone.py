"""Converts the convolutional part of a detector to ONNX operators: backbone, feature pyramid and RPN head."""
from __future__ import annotations

import numpy as np
from mindspore import nn

from src.errors import UserError
from src.export.onnx_graph import Graph
from src.models.fpn import BilinearUpsample
from src.models.residual import Chain, ConvBatchNorm, PaddedMaxPool, ResidualBlock


def pyramid(graph: Graph, network: nn.Cell, image: str) -> list[str]:
    """Add backbone and FPN of a `FasterRCNN`. Return the names of the levels (B, C, H_i, W_i) of a normalised image (B, 3, H, W).

    Raises:
        UserError: the backbone has a cell that mindcv's ResNets do not have.
    """
    features = []
    for part in network.backbone.parts:
        image = _cell(graph, part, image)
        features.append(image)
    return _fpn(graph, network.fpn, [features[i] for i in network.level_index])


def rpn_outputs(graph: Graph, head: nn.Cell, levels: list[str], batch: int) -> list[tuple[str, str]]:
    """Return a list with a pair per level: logits (B, n) and deltas (B, n, 4), which `RPNHead` concatenates."""
    outputs = []
    for level in levels:
        hidden = graph.add("Relu", _conv(graph, head.conv, level))
        logits, deltas = (graph.add("Transpose", _conv(graph, conv, hidden), perm=[0, 2, 3, 1])
                          for conv in (head.objectness, head.deltas))
        outputs.append((graph.reshape(logits, batch, -1), graph.reshape(deltas, batch, -1, 4)))
    return outputs


def _cell(graph, cell, x):
    """Add a cell of the backbone, and return its output."""
    if isinstance(cell, Chain):
        for inner in cell.cells_in_order:
            x = _cell(graph, inner, x)
        return x
    if isinstance(cell, ResidualBlock):
        return _residual_block(graph, cell, x)
    if isinstance(cell, ConvBatchNorm):
        return _normalized_conv(graph, cell, x)
    if isinstance(cell, nn.Conv2d):
        return _conv(graph, cell, x)
    if isinstance(cell, nn.ReLU):
        return graph.add("Relu", x)
    if isinstance(cell, PaddedMaxPool):
        return graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    if isinstance(cell, nn.MaxPool2d):
        kernel, stride = _pair(cell.kernel_size), _pair(cell.stride)
        pads = _pads(cell.pad_mode, kernel, stride, None)
        return graph.add("MaxPool", x, kernel_shape=kernel, strides=stride, pads=pads)
    raise UserError(f"backbone.name: the backbone has a cell {type(cell).__name__}, which cannot be written as ONNX operators; "
                    "take a ResNet, or export with --file_format MINDIR.")


def _residual_block(graph, block, x):
    out, last = x, len(block.convolutions) - 1
    for conv in list(block.convolutions)[:last]:
        out = graph.add("Relu", _normalized_conv(graph, conv, out))
    identity = x if block.shortcut is None else _cell(graph, block.shortcut, x)
    return graph.add("Relu", graph.add("Add", _normalized_conv(graph, block.convolutions[last], out), identity))


def _normalized_conv(graph, cell, x):
    norm = cell.norm
    gamma, beta, mean, variance = (p.asnumpy() for p in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance))
    scale = gamma / np.sqrt(variance + np.float32(norm.eps))
    weight = cell.conv.weight.asnumpy() * scale.reshape(-1, 1, 1, 1)
    return _convolve(graph, cell.conv, x, weight, beta - mean * scale)


def _conv(graph, conv, x):
    return _convolve(graph, conv, x, conv.weight.asnumpy(), *([conv.bias.asnumpy()] if conv.has_bias else []))


def _convolve(graph, conv, x, *parameters):
    """Add a convolution with the geometry of `conv` but other parameters: weight (K, C, h, w) and optionally bias (K,)."""
    operator = conv.conv2d
    kernel, stride, dilation = _pair(operator.kernel_size), _pair(operator.stride), _pair(operator.dilation)
    return graph.add("Conv", x, *parameters, kernel_shape=kernel, strides=stride, dilations=dilation, group=operator.group,
                     pads=_pads(operator.pad_mode, kernel, stride, operator.padding))


def _pair(value):
    """Return height and width of a MindSpore value, which is a number, a pair or a shape of four numbers."""
    return [int(side) for side in np.broadcast_to(value, 4 if np.size(value) == 4 else 2)[-2:]]


def _pads(mode, kernel, stride, given):
    """Return MindSpore's padding as [top, left, bottom, right].

    Args:
        mode: same, valid or pad.
        kernel: (height, width).
        stride: (y, x).
        given: (top, bottom, left, right) if mode is pad.
    """
    if mode.lower() == "pad":
        top, bottom, left, right = map(int, given)
        return [top, left, bottom, right]
    # Heights and widths of the inputs are multiples of the stride.
    total = [max(k - s, 0) if mode.lower() == "same" else 0 for k, s in zip(kernel, stride)]
    return [side // 2 for side in total] + [side - side // 2 for side in total]


def _fpn(graph, fpn, features):
    lateral = [_conv(graph, conv, feature) for conv, feature in zip(fpn.lateral, features)]
    merged = lateral[-1:]
    for finer in lateral[-2::-1]:
        merged.insert(0, graph.add("Add", finer, _upsampled(graph, fpn.upsample, merged[0], finer)))
    levels = [_conv(graph, conv, feature) for conv, feature in zip(fpn.output, merged)]
    for _ in range(fpn.extra_levels):
        levels.append(_cell(graph, fpn.subsample, levels[-1]))
    return levels


def _upsampled(graph, upsample, coarse, fine):
    """Return `coarse` resized to the size of `fine`, which has the same number of channels."""
    size = graph.add("Shape", fine)
    if isinstance(upsample, BilinearUpsample):
        return graph.add("Resize", coarse, None, None, size, mode="linear", coordinate_transformation_mode="half_pixel")
    return graph.add("Resize", coarse, None, None, size, mode="nearest", nearest_mode="floor",
                     coordinate_transformation_mode="asymmetric")
