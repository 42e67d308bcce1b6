"""Code shared by the tools that convert weights: the network that a weights file belongs to, and the path of a checkpoint."""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mindcv.models import create_model
from mindspore import nn

from src.config import load_config, with_settings
from src.convert.torchvision_weights import num_classes_of, resnet_name
from src.detector import build_detector
from src.errors import UserError
from src.run.files import prepare_output

TORCHVISION_CONFIG = Path(__file__).resolve().parents[1] / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_torchvision.yml"


def prepare_checkpoint(path: str) -> None:
    """Create the folder of a checkpoint if it is missing, and check before any slow work that the checkpoint can be written.

    Raises:
        UserError: the name does not end with .ckpt, the folder cannot be created or written to, or the path is a folder.
    """
    if not path.endswith(".ckpt"):
        raise UserError(f"the checkpoint to write is {path!r}; its name must end with .ckpt.")
    prepare_output(path)


def config_of(config: str | None, names: Iterable[str], path: str):
    """Return the configuration of the detector with the parameters `names`, in fp32, with random initialisation.

    Args:
        config: path of a YAML file, or None for torchvision's detector with the ResNet that has these names.
        names: parameter names of torchvision or of this project.
        path: path of the weights file, for messages.

    Raises:
        UserError: the names belong to no ResNet, or to a ResNet that differs from the configuration.
    """
    cfg = load_config(config or TORCHVISION_CONFIG)
    backbone = f"det_{resnet_name(names, path)}"
    if config and cfg.backbone.name not in (backbone, backbone[len("det_"):]):
        raise UserError(f"{path} has the backbone {backbone}, but {config} says {cfg.backbone.name}.")
    return with_settings(cfg, {"backbone.name": backbone, "backbone.pretrained": False, "mix": False})


def network_of(config: str | None, state: dict, path: str) -> nn.Cell:
    """Return the network for a torchvision state dict, with random weights: a detector, or mindcv's ResNet.

    For the arguments see `config_of`.

    Raises:
        UserError: the state dict belongs to neither, or contradicts the configuration.
    """
    if not any(name.startswith("backbone.") for name in state):
        return create_model(resnet_name(state, path))
    cfg = config_of(config, state, path)
    return build_detector(cfg, num_classes_of(state, cfg.data.nc, path))
