"""What the tools that convert weights share: the network that a file of weights belongs to, and the path of a checkpoint."""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mindcv.models import create_model
from mindspore import nn

from src.config import load_config, with_settings
from src.convert.torchvision_weights import num_classes_of, resnet_name
from src.detector import build_detector
from src.errors import UserError
from src.files import prepare_output

TORCHVISION_CONFIG = Path(__file__).resolve().parents[1] / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_torchvision.yml"


def prepare_checkpoint(path: str) -> None:
    """Make the folder of a checkpoint where it is missing, and check, before anything takes time, that it can be written.

    Raises:
        UserError: its name does not end with .ckpt, its folder cannot be made or written to, or it is a folder itself.
    """
    if not path.endswith(".ckpt"):
        raise UserError(f"the checkpoint to write is {path!r}; its name must end with .ckpt.")
    prepare_output(path)


def config_of(config: str | None, names: Iterable[str], path: str):
    """The configuration of the detector whose parameters are called `names`, in fp32, with random initial weights.

    Args:
        config: path of a YAML file, or None for torchvision's detector with the ResNet that the names belong to.
        names: of parameters, in torchvision or here.
        path: of their file, for messages.

    Raises:
        UserError: no ResNet, or another one than the configuration's.
    """
    cfg = load_config(config or TORCHVISION_CONFIG)
    backbone = f"det_{resnet_name(names, path)}"
    if config and cfg.backbone.name not in (backbone, backbone[len("det_"):]):
        raise UserError(f"{path} has the backbone {backbone}, but {config} says {cfg.backbone.name}.")
    return with_settings(cfg, {"backbone.name": backbone, "backbone.pretrained": False, "mix": False})


def network_of(config: str | None, state: dict, path: str) -> nn.Cell:
    """The network, with random weights, that a state dict of torchvision belongs to: a detector, or mindcv's ResNet.

    For the arguments see `config_of`.

    Raises:
        UserError: it is neither, or contradicts the configuration.
    """
    if not any(name.startswith("backbone.") for name in state):
        return create_model(resnet_name(state, path))
    cfg = config_of(config, state, path)
    return build_detector(cfg, num_classes_of(state, cfg.data.nc, path))
