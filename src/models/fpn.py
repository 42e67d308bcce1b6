"""Feature pyramid network (arXiv:1612.03144)."""
from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeUniform

from src.models.backbone import ConvBatchNorm


def _conv(in_channels, out_channels, kernel_size, norm):
    # HeUniform with slope 1 is Caffe2's XavierFill, the initialisation of the pyramids in Detectron and torchvision.
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, pad_mode="same", has_bias=norm is None,
                     weight_init=HeUniform(negative_slope=1), bias_init="zeros")
    return conv if norm is None else ConvBatchNorm(conv, norm(out_channels))


class FPN(nn.Cell):
    """Maps features C2..C5 to levels P2..P5 and extra levels. Each extra level subsamples the previous level with stride 2.

    Args:
        in_channels: number of channels of each backbone feature, finest first.
        out_channels: number of channels of every level.
        num_outs: number of levels to return.
        upsample_mode: `nearest` or `bilinear`.
        norm: class of the normalisation after each convolution, which then has no bias, or None.
    """

    def __init__(self, in_channels: list[int], out_channels: int, num_outs: int, upsample_mode: str,
                 norm: type[nn.Cell] | None = None):
        super().__init__()
        self.lateral = nn.CellList([_conv(channels, out_channels, 1, norm) for channels in in_channels])
        self.output = nn.CellList([_conv(out_channels, out_channels, 3, norm) for _ in in_channels])
        self.extra_levels = num_outs - len(in_channels)
        # Max pooling with a 1x1 kernel, as MindSpore 2.10 has no gradient for [::2] in PyNative mode on the CPU.
        self.subsample = nn.MaxPool2d(kernel_size=1, stride=2)
        self.upsample_mode = upsample_mode
        self.align_corners = False if upsample_mode == "bilinear" else None  # False: half-pixel centres; nearest has no choice

    def construct(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return levels (B, out_channels, H_i, W_i) float32 of features (B, C_i, H_i, W_i), as tuples, finest first."""
        top = len(features) - 1
        merged = ops.cast(self.lateral[top](features[top]), ms.float32)
        levels = (ops.cast(self.output[top](merged), ms.float32),)
        for i in range(top - 1, -1, -1):
            lateral = ops.cast(self.lateral[i](features[i]), ms.float32)
            merged = lateral + ops.interpolate(merged, size=lateral.shape[2:], mode=self.upsample_mode,
                                               align_corners=self.align_corners)
            levels = (ops.cast(self.output[i](merged), ms.float32),) + levels
        for _ in range(self.extra_levels):
            levels = levels + (self.subsample(levels[-1]),)
        return levels
