"""Checkpoints of torchvision's weight files, and of published weights by name."""
from __future__ import annotations

import logging
import os
from collections.abc import Collection

from mindcv.models import create_model
from mindspore import Tensor, nn

from src import __version__
from src.checkpoint import FOR_AN_IMAGE, is_intact, texts_of, write_checkpoint
from src.config import Config, load_config, with_settings
from src.convert.downloads import download
from src.convert.torch_files import read_state
from src.convert.torchvision_weights import COCO_ROWS, SCORES_OF_ALL, from_torchvision, num_classes_of, resnet_name
from src.detector import build_detector
from src.errors import UserError
from src.run.distributed import ROOT
from src.run.files import lock_file, writing_into

logger = logging.getLogger("faster_rcnn")

TORCHVISION_CONFIG = ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_torchvision_coco.yml"
TORCHVISION_V2_CONFIG = TORCHVISION_CONFIG.with_name("faster_rcnn_resnet50_fpn_v2.yml")
COCO_NAMES = [  # in the order of COCO's category ids
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light", "fire hydrant",
    "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe",
    "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat",
    "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon",
    "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave",
    "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"]


def published_checkpoint(name: str) -> str:
    """Return the path of the checkpoint with the weights `name`, see `download`. A file of torchvision is converted once.

    Raises:
        UserError: see `download`; the file has other tensors than expected.
    """
    path = download(name)
    if path.endswith(".ckpt"):
        return path
    target = f"{os.path.splitext(path)[0]}_{__version__}.ckpt"
    with writing_into(os.path.dirname(path), name), open(f"{path}.lock", "w") as lock:  # of several processes, one converts
        lock_file(lock, wait=True)
        if not (os.path.isfile(target) and is_intact(target)):
            convert_torchvision(path, target)
    return target


def convert_torchvision(source: str, target: str, config: str | None = None) -> None:
    """Write the checkpoint `target` with the weights of a torchvision file: a detector or an ImageNet ResNet.

    The checkpoint of a detector contains the settings that its results for an image depend on, and COCO's class names if it has
    them. `config` is the YAML file of the detector, see `config_of`.

    Raises:
        UserError: the file cannot be read, or does not fit the network.
    """
    state = read_state(source)
    if any(name.startswith("backbone.") for name in state):
        cfg = config_of(config, state, source)
        is_coco = len(state.get(SCORES_OF_ALL, ())) == COCO_ROWS
        if not config and not is_coco:
            cfg = with_settings(cfg, {"backbone.bn_eps": 1e-5})  # only the published detectors have no epsilon
        network: nn.Cell = build_detector(cfg, num_classes_of(state, cfg.data.nc, source))
        names = COCO_NAMES if is_coco and cfg.data.nc in (None, len(COCO_NAMES)) else None
        texts = texts_of(cfg.model_dump(include=FOR_AN_IMAGE), names)
    else:
        network, texts = create_model(resnet_name(state, source)), {}
    weights = from_torchvision(state, {p.name: p.shape for p in network.get_parameters()}, source)
    write_checkpoint(target, {name: Tensor(array) for name, array in weights.items()}, texts)
    logger.info("%s: a %s, all %d tensors converted", source, type(network).__name__, len(state))


def config_of(config: str | None, names: Collection[str], path: str) -> Config:
    """Return the configuration of the detector with the parameters `names`, in fp32, with random initialisation.

    `config` is the path of a YAML file, or None for torchvision's detector with the ResNet that has these names. It is the second
    version (v2) if the pyramid has BatchNorm. The names may be torchvision's. `path` is the weights file, for messages.

    Raises:
        UserError: the names belong to no ResNet, or to a ResNet that differs from the configuration.
    """
    has_norm = any("fpn." in name and name.endswith(("running_mean", "moving_mean")) for name in names)
    cfg = load_config(config or (TORCHVISION_V2_CONFIG if has_norm else TORCHVISION_CONFIG))
    backbone = f"det_{resnet_name(names, path)}"
    if config and cfg.backbone.name not in (backbone, backbone[len("det_"):]):
        raise UserError(f"{path} has the backbone {backbone}, but {config} says {cfg.backbone.name}.")
    return with_settings(cfg, {"backbone.name": backbone, "backbone.pretrained": False, "mix": False})
