"""torchvision's detector with known weights, as this project builds it.

The weights are in no file: each tensor is drawn from its name in torchvision, here and where the stored numbers were made.
"""
import math
import zlib
from pathlib import Path

import mindspore as ms
import numpy as np

from src.config.load import load_config
from src.detector import build_detector
from src.interchange.torchvision_weights import from_torchvision, torchvision_names
from src.train.checkpoint import load_weights

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_torchvision.yml"


def draw_tensor(name, shape, salt):
    """The tensor that torchvision's state dict holds under `name`, float32."""
    normal = np.random.default_rng([zlib.crc32(name.encode()), salt]).standard_normal(shape)
    if name.endswith("running_mean"):
        value = normal / 10
    elif name.endswith("running_var"):
        value = 1 + abs(normal) / 10
    elif len(shape) == 1:
        value = (1 + normal / 10) * (0.2 if ".bn3." in name else 1) if name.endswith(".weight") else normal / 20
    else:
        gain = 2 if any(part in name for part in (".body.", "conv", "fc")) else 1
        gain = 0.25 if name.endswith("bbox_pred.weight") else gain
        value = normal * math.sqrt(gain / math.prod(shape[1:]))
    return value.astype(np.float32)


def torchvision_config(height, width, overrides=()):
    """torchvision's configuration for a canvas of height x width pixels, and (key, value) pairs."""
    settings = [("backbone.pretrained", False), ("data.target_size", [height, width]), ("ms_loss_scaler", "none"), *overrides]
    return load_config(CONFIG, [(key, value, "test") for key, value in settings])


def torchvision_state(network, num_classes, salt):
    """A state dict of torchvision for a network of K classes, the background first."""
    state = {}
    for parameter in network.get_parameters():
        name, shape = torchvision_names(parameter.name)[0], parameter.shape
        rows = {"cls_score": num_classes + 1, "bbox_pred": 4 * (num_classes + 1)}
        if name.startswith("roi_heads.box_predictor."):
            shape = (rows[name.split(".")[2]], *shape[1:])
        state[name] = draw_tensor(name, shape, salt)
    return state


def drawn_network(cfg, num_classes, salt):
    """A detector with the drawn weights, in graph mode."""
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    network = build_detector(cfg, num_classes)
    state = torchvision_state(network, num_classes, salt)
    weights = from_torchvision(state, {p.name: p.shape for p in network.get_parameters()}, "the drawn weights")
    load_weights(network, {name: ms.Tensor(array) for name, array in weights.items()}, "the drawn weights")
    return network
