"""Tiny detectors with random weights that produce detections, and images for them."""
import mindspore as ms
import numpy as np

from src.checkpoint import write_checkpoint
from src.config.load import load_config
from src.dataset.shapes import draw_scene
from src.detector import build_detector
from src.models import DELTAS
from tests.helpers.paths import TINY_DETECTOR

NUM_CLASSES = 3
# Settings of `tiny_config` for the parts of torchvision's second network.
V2 = {"backbone__fpn__norm": "bn", "rpn_head__num_convs": 2, "bbox_head__head__name": "ConvFCHead",
      "bbox_head__head__num_convs": 2, "bbox_head__head__num_fcs": 1}


def tiny_config(**settings):
    """Return the tiny detector's configuration on the CPU in fp32; settings: dotted names with __ instead of dots."""
    settings = {"device_target": "CPU", "mix": False, "backbone__pretrained": False, **settings}
    return load_config(TINY_DETECTOR, [(key.replace("__", "."), value, "test") for key, value in settings.items()])


def tiny_network(cfg, num_classes=NUM_CLASSES):
    """Return a FasterRCNN with different boxes and scores for each proposal, and with BatchNorm that is not the identity."""
    network = build_detector(cfg, num_classes)
    rng = np.random.default_rng(0)
    for parameter in network.get_parameters():
        name, shape = parameter.name, parameter.shape
        if name.startswith(("rpn_head.objectness", "rpn_head.deltas", "box_head.classes", "box_head.deltas")):
            values = rng.normal(0, 0.2, shape)
        elif name.endswith((".moving_mean", ".beta")):
            values = rng.normal(0, 0.1, shape)
        elif name.endswith((".moving_variance", ".gamma")):
            values = rng.uniform(0.5, 1.0, shape)
        else:
            continue
        parameter.set_data(ms.Tensor(values.astype(np.float32)))
    return network


def tiny_inputs(batch, side=64):
    """Return image uint8 (B, side, side, 3), with padding in the bottom rows, and valid_size float32 (B, 2)."""
    image, heights = np.zeros((batch, side, side, 3), np.uint8), [side * (6 + row) // 8 for row in range(batch)]
    for row, height in enumerate(heights):
        image[row, :height] = draw_scene(np.random.default_rng([7, row]), height, side)[0]
    return image, np.array([[height, side] for height in heights], np.float32)


# With this loss scale and the weights of `write_overflowing`, gradients overflow in every step.
OVERFLOWING_SCALE = ["--mix", "False", "--ms_loss_scaler", "static", "--ms_loss_scaler_value", str(2**30)]


def write_overflowing(path, num_classes):
    """Write a checkpoint with finite losses, but gradients beyond float32 with a loss scale of 2**30."""
    ms.set_device("CPU")  # before any operator runs in this process
    parameters = {parameter.name: parameter for parameter in tiny_network(tiny_config(), num_classes).get_parameters()}
    large = parameters[f"{DELTAS}weight"]
    large.set_data(ms.Tensor(large.asnumpy() * np.float32(1e33)))
    write_checkpoint(str(path), parameters)
