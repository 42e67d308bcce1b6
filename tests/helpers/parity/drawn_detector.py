"""torchvision's detector with known weights, built by this project."""

import mindspore as ms

from src.checkpoint import Checkpoint, load_weights
from src.config.load import load_config
from src.convert.torchvision_weights import from_torchvision
from src.detector import build_detector
from tests.helpers.parity.cases import draw_tensor
from tests.helpers.paths import ROOT
from tests.helpers.torchvision_files import detector_shapes

# All anchors that are not ignored and all proposals are sampled, so nothing is random.
SAMPLE_ALL = [("rpn_head.rpn_label_assignment.rnp_sample_batch", 100_000), ("rpn_head.rpn_label_assignment.fg_fraction", 1.0),
              ("bbox_head.bbox_assigner.rois_per_batch", 100_000), ("bbox_head.bbox_assigner.fg_fraction", 1.0)]
CONFIG = ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_torchvision.yml"


def torchvision_config(height, width, overrides=()):
    """Return torchvision's configuration for a canvas of height x width pixels, with additional (key, value) pairs."""
    settings = [("backbone.pretrained", False), ("data.target_size", [height, width]), ("ms_loss_scaler", "none"), *overrides]
    return load_config(CONFIG, [(key, value, "test") for key, value in settings])


def torchvision_state(num_classes, salt):
    """Return a torchvision state dict of ResNet50 for K classes, background first."""
    shapes = detector_shapes("resnet50", num_classes + 1)
    return {name: draw_tensor(name, shape, salt) for name, shape in shapes.items()}


def drawn_network(cfg, num_classes, salt):
    """Return a detector with the known weights, in graph mode."""
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    network = build_detector(cfg, num_classes)
    state = torchvision_state(num_classes, salt)
    weights = from_torchvision(state, {p.name: p.shape for p in network.get_parameters()}, "the drawn weights")
    load_weights(network, Checkpoint("the drawn weights", weights, {}, {}, {}, None, False))
    return network
