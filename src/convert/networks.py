"""The network that a file of weights belongs to, and checkpoints of its weights."""
from pathlib import Path

from mindcv.models import create_model
from mindspore import Tensor

from src.config import load_config, with_settings
from src.convert.torchvision_weights import num_classes_of, resnet_name
from src.detector import build_detector
from src.errors import UserError
from src.files import require_folder_of
from src.train.checkpoint import write_checkpoint

TORCHVISION_CONFIG = Path(__file__).resolve().parents[2] / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_torchvision.yml"


def config_of(config, names, path):
    """The configuration of the detector whose parameters are called `names`, in fp32, with random initial weights.

    Args:
        config: path of a YAML file, or None for torchvision's detector with the ResNet that the names tell;
        names: of parameters, in torchvision or here; path: of the file of weights, for messages.

    Raises:
        UserError: no ResNet, or another one than the configuration's.
    """
    cfg = load_config(config or TORCHVISION_CONFIG)
    backbone = f"det_{resnet_name(names, path)}"
    if config and cfg.backbone.name not in (backbone, backbone[len("det_"):]):
        raise UserError(f"{path} has the backbone {backbone}, but {config} says {cfg.backbone.name}.")
    return with_settings(cfg, {"backbone.name": backbone, "backbone.pretrained": False, "mix": False})


def network_of(config, state, path):
    """The network that a state dict of torchvision fills, with random weights: a detector, or a mindcv ResNet.

    Args:
        config: see `config_of`; state: dict of name -> array; path: for messages.

    Raises:
        UserError: it is neither, or contradicts the configuration.
    """
    if not any(name.startswith("backbone.") for name in state):
        return create_model(resnet_name(state, path))
    cfg = config_of(config, state, path)
    return build_detector(cfg, num_classes_of(state, cfg.data.nc, path))


def save_weights(path, weights):
    """Write a dict of name -> array as a checkpoint.

    Raises:
        UserError: the path does not end with .ckpt, or its folder does not exist.
    """
    if not path.endswith(".ckpt"):
        raise UserError(f"the checkpoint to write is {path!r}; its name must end with .ckpt.")
    require_folder_of(path)
    write_checkpoint(path, {name: Tensor(array) for name, array in weights.items()})
