"""Builds the detector from a configuration, in the configured precision, and runs it."""
from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from mindspore.nn.utils import no_init_parameters

from src.checkpoint import read_checkpoint
from src.config import Config
from src.errors import UserError
from src.models import BACKBONE
from src.models.backbone import build_backbone
from src.models.faster_rcnn import FasterRCNN, InferenceForward, to_mixed_precision
from src.run.compile_cache import stored_graph
from src.run.optional import kernels


def build_detector(cfg: Config, num_classes: int, pretrained: bool = True, num_processes: int = 1) -> FasterRCNN:
    """Return a `FasterRCNN` initialised with cfg.seed, in mixed precision of cfg.mix_dtype if cfg.mix is True.

    Args:
        num_classes: K, without background.
        pretrained: whether to load the backbone's weights that cfg.backbone.pretrained names. False is for a network whose
            weights come from a checkpoint or from another process.
        num_processes: number of training processes. On Ascend, BatchNorm is synchronised if there are several; MindSpore does not
            support this on other devices.

    Raises:
        UserError: if the backbone cannot be built, or its weights cannot be read or do not fit.
    """
    ms.set_seed(cfg.seed)
    weights = read_pretrained(cfg.backbone.pretrained) if pretrained else False
    norm = nn.SyncBatchNorm if cfg.device_target == "Ascend" and num_processes > 1 else nn.BatchNorm2d
    network = FasterRCNN(cfg, num_classes, build_backbone(cfg.backbone, norm, weights), norm)
    # On the CPU, `use_kernels` applies mixed precision.
    return to_mixed_precision(network, getattr(ms, cfg.mix_dtype)) if cfg.mix and cfg.device_target != "CPU" else network


def build_empty_detector(cfg: Config, num_classes: int) -> FasterRCNN:
    """Return the network of `build_detector` without initial weights, which saves a second; the caller must set all of them."""
    try:
        with no_init_parameters():
            return build_detector(cfg, num_classes, pretrained=False)
    except RuntimeError:
        # Some mindcv networks, such as ConvNeXt, compute with their weights during construction.
        return build_detector(cfg, num_classes, pretrained=False)


def read_pretrained(setting: bool | str) -> bool | dict[str, np.ndarray]:
    """Return the setting `backbone.pretrained` if it is True or False, else {mindcv's name: array} of the file that it names.

    The file may also be a detector of this project or of the older MindSpore implementation; see `read_checkpoint` for errors.
    """
    if isinstance(setting, bool) or not setting:
        return bool(setting)
    try:
        weights = read_checkpoint(setting).weights
    except UserError as error:
        raise UserError(f"backbone.pretrained: {error}") from error
    return {name[len(BACKBONE):] if name.startswith(BACKBONE) else name: array for name, array in weights.items()}


class Predictor:
    """Runs a detector. The graph of each canvas is compiled when its first images arrive."""

    def __init__(self, network: FasterRCNN, cfg: Config):
        self.network, self.cfg = network, cfg
        self.forwards = {canvas: kernels().use_kernels(InferenceForward(network, cfg, canvas), cfg)
                         for canvas in cfg.data.canvases}

    def __call__(self, image: Tensor, valid_size: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes (B, R, K, 4) in canvas pixels and scores (B, R, K), float32.

        Args:
            image: (B, H, W, 3) uint8 RGB.
            valid_size: (B, 2) float32, height and width of each image on its canvas.
        """
        canvas = image.shape[1], image.shape[2]
        forward = self.forwards[canvas].set_train(False)
        with stored_graph(f"inference {canvas}"):
            boxes, scores = forward(image, valid_size)
        return boxes.asnumpy(), scores.asnumpy()
