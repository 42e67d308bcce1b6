"""The detector ready to run: built from a configuration, in the precision asked for."""
from __future__ import annotations

import os

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.checkpoint_file import load_checkpoint_file
from src.compile_cache import stored_graph
from src.cpu_kernels.replace import use_kernels
from src.errors import UserError
from src.models.backbone import build_backbone
from src.models.faster_rcnn import FasterRCNN, InferenceForward
from src.models.precision import to_mixed_precision


def build_detector(cfg, num_classes: int, norm: type = nn.BatchNorm2d, pretrained: bool = True) -> FasterRCNN:
    """A `FasterRCNN` with initial weights drawn from cfg.seed, in mixed precision if cfg.mix.

    Args:
        cfg: the configuration.
        num_classes: K, without background.
        norm: class of the backbone's normalisation layers, which only mindcv's ResNets let one choose.
        pretrained: whether the backbone has the weights that cfg.backbone.pretrained names. False leaves it random, for a
            network whose weights come from a checkpoint or from another process.

    Raises:
        UserError: the backbone cannot be built, or its weights cannot be read or do not fit.
    """
    ms.set_seed(cfg.seed)
    weights = read_pretrained(cfg.backbone.pretrained) if pretrained else False
    network = FasterRCNN(cfg, num_classes, build_backbone(cfg.backbone, norm, weights))
    return to_mixed_precision(network) if cfg.mix else network


def read_pretrained(setting: bool | str) -> bool | dict:
    """What `backbone.pretrained` says, True or False, or what the file that it names holds, a dict of name -> Parameter.

    Raises:
        UserError: there is no such file, or it is not a checkpoint.
    """
    if isinstance(setting, bool) or not setting:
        return bool(setting)
    if not os.path.isfile(setting):
        raise UserError(f"backbone.pretrained: there is no file {setting!r}.")
    try:
        return load_checkpoint_file(setting)
    except (ValueError, OSError) as error:
        raise UserError(f"backbone.pretrained: {setting} is not a MindSpore checkpoint.") from error


class Predictor:
    """Runs a detector on batches of images.

    Args:
        network: the detector.
        cfg: the configuration.
    """

    def __init__(self, network: FasterRCNN, cfg):
        self.network = network
        self.forward = use_kernels(InferenceForward(network, cfg), cfg)

    def __call__(self, image: Tensor, valid_size: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (B, R, K, 4) in canvas pixels and scores (B, R, K), float32.

        Args:
            image: (B, H, W, 3) uint8 RGB.
            valid_size: (B, 2) float32, height and width of each image on its canvas.
        """
        self.forward.set_train(False)
        with stored_graph("inference"):
            boxes, scores = self.forward(image, valid_size)
        return boxes.asnumpy(), scores.asnumpy()
