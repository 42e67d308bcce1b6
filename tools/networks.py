"""Code shared by the tools that convert weights: their arguments, the network of a weights file, and the path of a checkpoint.

MindSpore is imported in functions, because it reads the environment that `launch` prepares.
"""
from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from src.config import Config, load_config, with_settings
from src.errors import UserError
from src.run.distributed import ROOT
from src.run.files import prepare_output

if TYPE_CHECKING:
    from mindspore import nn

    from src.checkpoint import Checkpoint

TORCHVISION_CONFIG = ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_torchvision_coco.yml"
DETECTOR = "checkpoint of a detector with a ResNet-FPN backbone"
TRAINED_WITH = ("YAML file that the checkpoint was trained with (default: faster_rcnn_resnet50_fpn_torchvision_coco.yml "
                "with the ResNet that IN has)")


def parse_conversion(description: str, source: str, target: str, config: str = TRAINED_WITH) -> argparse.Namespace:
    """Return the arguments input, output and config of a tool with this description and these help texts."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("input", metavar="IN", help=source)
    parser.add_argument("output", metavar="OUT", help=target)
    parser.add_argument("--config", metavar="FILE", help=config)
    return parser.parse_args()


def prepare_checkpoint(path: str) -> None:
    """Create the folder of a checkpoint, and raise a UserError if the checkpoint cannot be written or does not end with .ckpt."""
    if not path.endswith(".ckpt"):
        raise UserError(f"the checkpoint to write is {path!r}; its name must end with .ckpt.")
    prepare_output(path)


def config_of(config: str | None, names: Iterable[str], path: str) -> Config:
    """Return the configuration of the detector with the parameters `names`, in fp32, with random initialisation.

    `config` is the path of a YAML file, or None for torchvision's detector with the ResNet that has these names. The names may be
    torchvision's. `path` is the weights file, for messages.

    Raises:
        UserError: the names belong to no ResNet, or to a ResNet that differs from the configuration.
    """
    from src.convert.torchvision_weights import resnet_name

    cfg = load_config(config or TORCHVISION_CONFIG)
    backbone = f"det_{resnet_name(names, path)}"
    if config and cfg.backbone.name not in (backbone, backbone[len("det_"):]):
        raise UserError(f"{path} has the backbone {backbone}, but {config} says {cfg.backbone.name}.")
    return with_settings(cfg, {"backbone.name": backbone, "backbone.pretrained": False, "mix": False})


def network_of(config: str | None, state: dict, path: str) -> tuple[nn.Cell, Config | None]:
    """Return the random network of a torchvision state dict: a detector and its `config_of`, or mindcv's ResNet and None."""
    from mindcv.models import create_model

    from src.convert.torchvision_weights import COCO_ROWS, SCORES_OF_ALL, num_classes_of, resnet_name
    from src.detector import build_detector

    if not any(name.startswith("backbone.") for name in state):
        return create_model(resnet_name(state, path)), None
    cfg = config_of(config, state, path)
    if not config and len(state.get(SCORES_OF_ALL, ())) != COCO_ROWS:
        cfg = with_settings(cfg, {"backbone.bn_eps": 1e-5})  # only the published detectors have no epsilon
    return build_detector(cfg, num_classes_of(state, cfg.data.nc, path)), cfg


def load_network(config: str | None, path: str) -> tuple[nn.Cell, Checkpoint]:
    """Return the detector of a checkpoint with its weights, see `config_of`, and the checkpoint."""
    from src.checkpoint import load_weights, read_checkpoint
    from src.detector import build_detector

    checkpoint = read_checkpoint(path)
    num_classes = checkpoint.num_classes  # raises a UserError if it is not a detector
    network = build_detector(config_of(config, checkpoint.weights, path), num_classes)
    load_weights(network, checkpoint)
    return network, checkpoint
