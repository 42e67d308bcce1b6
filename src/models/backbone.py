"""The backbone: any mindcv classification network with features at strides 4, 8, 16 and 32, and the cells of a ResNet."""
from __future__ import annotations

import difflib
import functools
import logging

import mindspore as ms
import numpy as np
from mindcv.models import create_model, is_model, list_models
from mindcv.models.features import FeatureExtractWrapper
from mindcv.models.resnet import BasicBlock, Bottleneck, ResNet
from mindspore import Tensor, nn, ops

from src.config import schema
from src.errors import UserError

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


class PaddedMaxPool(nn.Cell):
    """3x3 max pooling with stride 2 and padding 1. The input must be the output of a ReLU, which is not negative.

    nn.MaxPool2d with padding is MaxPool3DWithArgmax, which runs on Ascend's AI CPU but not on its AI cores. After a ReLU, padding
    with zeros is equivalent: if a padded zero is selected instead of a zero feature, the ReLU stops the gradient anyway.
    """

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)

    def construct(self, x: Tensor) -> Tensor:
        """Return (B, C, ceil(H / 2), ceil(W / 2)) for non-negative x (B, C, H, W)."""
        batch, channels, height, width = x.shape
        # Padding by concatenation: ops.Pad takes 5x longer on the CPU.
        column = ops.zeros((batch, channels, height, 1), x.dtype)
        x = ops.concat((column, x, column) if width % 2 else (column, x), 3)
        row = ops.zeros((batch, channels, 1, x.shape[3]), x.dtype)
        return self.pool(ops.concat((row, x, row) if height % 2 else (row, x), 2))


class FunctionalConv2d(nn.Cell):
    """ops.conv2d as a cell with weight and bias as inputs, and with kernel size, stride, padding, dilation and groups of `conv`.

    Attributes:
        compute_dtype: data type of the multiplications.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__(auto_prefix=False)
        self.conv2d = conv.conv2d
        self.compute_dtype = ms.float32

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return (B, K, H', W') float32 for x (B, C, H, W), weight (K, C, h, w) and bias (K,)."""
        convolved = self.conv2d(ops.cast(x, self.compute_dtype), ops.cast(weight, self.compute_dtype))
        return ops.bias_add(ops.cast(convolved, ms.float32), bias)


class ConvBatchNorm(nn.Cell):
    """A convolution followed by BatchNorm.

    BatchNorm with stored statistics is an affine map: y = conv(x, w s) + (beta - mean s) with s = gamma / sqrt(variance + eps).
    Compared with separate cells, this needs one pass less over the features, and one tensor less in memory.

    `conv` has no bias, and `norm` is an instance of a class in NORMS. Their parameters keep their names.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Cell):
        super().__init__(auto_prefix=False)
        self.conv = conv
        self.norm = norm
        self.convolution = FunctionalConv2d(conv)

    def construct(self, x: Tensor) -> Tensor:
        """Return features (B, K, H', W') for x (B, C, H, W)."""
        norm = self.norm
        if self.training and norm.use_batch_statistics is not False:
            return norm(self.conv(x))
        scale = norm.gamma / ops.sqrt(norm.moving_variance + norm.eps)
        return self.convolution(x, self.conv.weight * scale.reshape(-1, 1, 1, 1), norm.beta - norm.moving_mean * scale)


class ResidualBlock(nn.Cell):
    """mindcv's BasicBlock or Bottleneck (arXiv:1512.03385, figure 5), with the cells and parameter names of `block`."""

    def __init__(self, block: nn.Cell):
        super().__init__(auto_prefix=False)
        pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
        if isinstance(block, Bottleneck):
            pairs.append((block.conv3, block.bn3))
        self.convolutions = nn.CellList([ConvBatchNorm(*pair) for pair in pairs], auto_prefix=False)
        self.shortcut = None if block.down_sample is None else fold_batch_norm(block.down_sample)

    def construct(self, x: Tensor) -> Tensor:
        """Return features (B, K, H', W') for x (B, C, H, W)."""
        out, last = x, len(self.convolutions) - 1
        for i in range(last):
            out = ops.relu(self.convolutions[i](out))
        identity = x if self.shortcut is None else self.shortcut(x)
        return ops.relu(self.convolutions[last](out) + identity)


class Chain(nn.Cell):
    """A sequence of cells that keeps the names of their parameters; nn.SequentialCell would change them."""

    def __init__(self, cells: list[nn.Cell]):
        super().__init__(auto_prefix=False)
        self.cells_in_order = nn.CellList(cells, auto_prefix=False)

    def construct(self, x: Tensor) -> Tensor:
        """Return the output of the last cell for x (B, C, H, W)."""
        for cell in self.cells_in_order:
            x = cell(x)
        return x


def fold_batch_norm(sequence: list[nn.Cell]) -> Chain:
    """Return a `Chain` of the cells. Each convolution followed by BatchNorm becomes one `ConvBatchNorm`."""
    cells = []
    for cell in sequence:
        if isinstance(cell, NORMS) and cells and isinstance(cells[-1], nn.Conv2d) and not cells[-1].has_bias:
            cells[-1] = ConvBatchNorm(cells[-1], cell)
        elif isinstance(cell, nn.SequentialCell):
            cells.append(fold_batch_norm(cell))
        elif type(cell) in (BasicBlock, Bottleneck):
            cells.append(ResidualBlock(cell))
        else:
            cells.append(cell)
    return Chain(cells)


logger = logging.getLogger("faster_rcnn")

STRIDES = (4, 8, 16, 32)


class Backbone(nn.Cell):
    """Maps images (B, 3, H, W) to a tuple of features at strides 4, 8, 16 and 32.

    Args:
        extractor: mindcv's wrapper. Its forward pass is not used: it appends to a list, so the graph compiler would fall back to
            the Python interpreter.

    Attributes:
        out_channels: number of channels of each feature.
        stages: mindcv's cells, which determine the parameter names.
        parts: the same cells in the order of execution, one part per feature.
    """

    def __init__(self, extractor: FeatureExtractWrapper):
        super().__init__(auto_prefix=False)
        self.out_channels = tuple(extractor.out_channels)
        self.stages = extractor.net
        ends = [i + 1 for i in extractor.return_index]
        self.parts = nn.CellList([fold_batch_norm(list(self.stages)[start:end]) for start, end in zip([0, *ends], ends)],
                                 auto_prefix=False)

    def construct(self, image: Tensor) -> tuple[Tensor, ...]:
        features = ()
        for part in self.parts:
            image = part(image)
            features += (image,)
        return features


def build_backbone(cfg: schema.Backbone, norm: type[nn.Cell] = nn.BatchNorm2d,
                   pretrained: bool | dict[str, np.ndarray] = False) -> Backbone:
    """Build the configured backbone.

    Args:
        cfg: the section `backbone` of the configuration.
        norm: class of the normalisation layers. With nn.SyncBatchNorm, a backbone that keeps nn.BatchNorm2d logs a warning.
        pretrained: True for mindcv's ImageNet weights, False for random initialisation, or the contents of the file
            cfg.pretrained by name.

    Raises:
        UserError: unknown mindcv model, wrong strides or channels, pretrained weights that do not fit, or a failed download.
    """
    model = _create(cfg, norm, download=pretrained is True)
    if isinstance(pretrained, dict):
        _load_pretrained(model, pretrained, cfg.pretrained)
    if cfg.stem_pool == "torchvision":
        if not isinstance(model, ResNet):
            raise UserError(f"backbone.stem_pool=torchvision needs a ResNet, but backbone.name is {cfg.name}; use mindcv.")
        model.max_pool = PaddedMaxPool()
    # If several features have the same stride, the last one is used.
    levels = {feature["reduction"]: i for i, feature in enumerate(getattr(model, "feature_info", []))}
    if getattr(model, "is_rewritten", False) or not levels.keys() >= set(STRIDES):
        raise UserError(f"backbone.name: {cfg.name} has no stages with the strides {list(STRIDES)}; use another mindcv model.")
    backbone = Backbone(FeatureExtractWrapper(model, [levels[stride] for stride in STRIDES]))
    if cfg.in_channels and list(cfg.in_channels) != list(backbone.out_channels):
        raise UserError(f"backbone.in_channels is {list(cfg.in_channels)}, but {cfg.name} has {list(backbone.out_channels)}; "
                        "correct the key or remove it.")
    _freeze(backbone, cfg)
    if norm is nn.SyncBatchNorm and any(isinstance(cell, nn.BatchNorm2d) and cell.use_batch_statistics is not False
                                        for _, cell in backbone.cells_and_names()):
        logger.warning("the BatchNorm layers of backbone %s use the images of each device alone, because only ResNets support "
                       "SyncBatchNorm; their statistics are averaged after each epoch; backbone.frozen_bn=True freezes them",
                       cfg.name)
    return backbone


def _create(cfg, norm, download):
    name = cfg.name[len("det_"):] if cfg.name.startswith("det_") else cfg.name
    if not is_model(name):
        nearest = difflib.get_close_matches(name, list_models(), n=1)
        raise UserError(f"backbone.name: mindcv has no model {name!r}" + (f"; did you mean {nearest[0]}?" if nearest else "."))
    options = {}
    if cfg.bn_eps is not None:
        options["norm"] = functools.partial(norm, eps=cfg.bn_eps)
    elif norm is not nn.BatchNorm2d and name.startswith(("resnet", "resnext")):
        options["norm"] = norm
    try:
        return create_model(name, pretrained=download, **options)
    except TypeError as error:
        if not options:
            raise
        raise UserError(f"backbone.bn_eps needs a ResNet, but backbone.name is {cfg.name}; remove the key.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"backbone.pretrained: the ImageNet weights of {name} cannot be downloaded ({error}); set it to the path "
                        "of a downloaded checkpoint, or to False for random weights.") from error


def _load_pretrained(model, stored, path):
    """Load all weights except for the classifier's."""
    body = {p.name: p for p in model.get_parameters() if not p.name.startswith(("classifier", "head", "fc"))}
    for name, parameter in body.items():
        if name not in stored or stored[name].shape != parameter.shape:
            found = f"has shape {stored[name].shape}" if name in stored else "is missing"
            raise UserError(f"backbone.pretrained: {path} does not fit: {name} {found}, and {parameter.shape} is needed.")
        parameter.set_data(Tensor(stored[name], parameter.dtype))


def _freeze(backbone, cfg):
    """Apply `frozen`, `frozen_bn` and `frozen_2stage`: the stem and the first stage, as in successors of arXiv:1506.01497.

    A frozen BatchNorm uses its stored statistics. Its scale and shift are not trained.
    """
    frozen = [backbone] if cfg.frozen else [backbone.parts[0]] if cfg.frozen_2stage else []
    for cell in frozen:
        for parameter in cell.get_parameters():
            parameter.requires_grad = False
    for cell in [backbone] if cfg.frozen_bn else frozen:
        for _, part in cell.cells_and_names():
            if isinstance(part, NORMS):
                part.use_batch_statistics = part.gamma.requires_grad = part.beta.requires_grad = False
