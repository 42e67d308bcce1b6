"""torchvision's detector with known weights, built by this project."""

import mindspore as ms
import numpy as np

from src.checkpoint import Checkpoint, load_weights
from src.config.load import load_config
from src.convert.torchvision_weights import from_torchvision
from src.detector import build_detector
from tests.helpers.parity.cases import V2_PROPOSALS, draw_tensor, last_norm
from tests.helpers.paths import ROOT
from tests.helpers.torchvision_files import detector_shapes, detector_v2_shapes

# All anchors that are not ignored and all proposals are sampled, so nothing is random.
SAMPLE_ALL = [("rpn_head.rpn_label_assignment.rnp_sample_batch", 100_000), ("rpn_head.rpn_label_assignment.fg_fraction", 1.0),
              ("bbox_head.bbox_assigner.rois_per_batch", 100_000), ("bbox_head.bbox_assigner.fg_fraction", 1.0)]
CONFIG = ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_torchvision.yml"
CONFIG_V2 = CONFIG.with_name("faster_rcnn_resnet50_fpn_v2.yml")


def torchvision_config(height, width, overrides=(), path=CONFIG):
    """Return torchvision's configuration for a canvas of height x width pixels, with additional (key, value) pairs."""
    settings = [("backbone.pretrained", False), ("data.target_size", [height, width]), ("ms_loss_scaler", "none"), *overrides]
    return load_config(path, [(key, value, "test") for key, value in settings])


def v2_config(resnet, height, width, num_boxes):
    """Return the configuration of torchvision's second network for one image with `num_boxes` boxes."""
    settings = [*SAMPLE_ALL, ("backbone.name", f"det_{resnet}"), ("rpn_head.train_proposal.post_nms_top_n", V2_PROPOSALS),
                ("bbox_head.bbox_assigner.rois_per_batch", V2_PROPOSALS + num_boxes), ("device_target", "CPU")]
    return torchvision_config(height, width, settings, CONFIG_V2)


def torchvision_state(num_classes, salt, resnet=None):
    """Return a torchvision state dict for K classes, background first: of the first network, or of the second with `resnet`."""
    rows = num_classes + 1
    shapes = detector_v2_shapes(resnet, rows) if resnet else detector_shapes("resnet50", rows)
    return {name: draw_tensor(name, shape, salt, last_norm(resnet)) if shape else np.array(0) for name, shape in shapes.items()}


def drawn_network(cfg, num_classes, salt, resnet=None):
    """Return a detector with the known weights, in graph mode."""
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    network = build_detector(cfg, num_classes)
    state = torchvision_state(num_classes, salt, resnet)
    weights = from_torchvision(state, {p.name: p.shape for p in network.get_parameters()}, "the drawn weights")
    load_weights(network, Checkpoint("the drawn weights", weights, {}, {}, {}, None, False))
    return network
