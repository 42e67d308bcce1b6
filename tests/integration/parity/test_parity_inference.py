"""Features, proposals and heads equal torchvision's with the same weights and photographs, in graph mode.

The photographs fill the canvas of the first network. On the canvas of the second network, they have odd sizes and padding.
"""
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.models.faster_rcnn import InferenceForward
from tests.helpers.parity.cases import PHOTOGRAPHS, photographs_of, stored_arrays
from tests.helpers.parity.comparison import relative_error, twins
from tests.helpers.parity.drawn_detector import CONFIG, CONFIG_V2, drawn_network, torchvision_config

RELATIVE = 1e-4
FIRST = 64  # number of proposals per photograph whose pooled features are stored


class Parts(nn.Cell):
    """All layers from a photograph to the box head's outputs. The box head runs on given RoIs."""

    def __init__(self, network, cfg):
        super().__init__(auto_prefix=False)
        self.network = network
        self.forward = InferenceForward(network, cfg, cfg.data.canvases[0])

    def construct(self, image, valid_size, rois):
        net = self.network
        levels = net.pyramid(self.forward.preprocess(image, valid_size))
        logits, deltas = net.rpn_head(levels)
        proposals, valid = self.forward.propose(self.forward.anchors, logits, deltas, valid_size)
        pooled = net.roi_align(levels, rois)
        class_logits, box_deltas = net.box_head(pooled)
        return *levels, logits, deltas, proposals, valid, pooled, class_logits, box_deltas


@pytest.fixture(scope="module", params=list(PHOTOGRAPHS))
def network(request):
    """The name of a network in PHOTOGRAPHS."""
    return request.param


@pytest.fixture(scope="module")
def stored(network):
    """torchvision's results, name -> array."""
    return stored_arrays(network)


@pytest.fixture(scope="module")
def outputs(network, stored):
    resnet, num_classes, salt, canvas, sizes = PHOTOGRAPHS[network]
    backbone = [("backbone.name", f"det_{resnet or 'resnet50'}")]
    cfg = torchvision_config(*canvas, backbone, CONFIG_V2 if resnet else CONFIG)
    parts = Parts(drawn_network(cfg, num_classes, salt, resnet), cfg)
    parts.set_train(False)
    images = np.zeros((2, *canvas, 3), np.uint8)
    for image, pixels, (height, width) in zip(images, photographs_of(network), sizes):
        image[:height, :width] = pixels
    rois = np.stack([stored[f"proposals_{i}"][:FIRST] for i in range(2)])
    values = [value.asnumpy() for value in parts(*map(Tensor, (images, np.float32(sizes), rois)))]
    names = ("logits", "deltas", "proposals", "valid", "pooled", "class_logits", "box_deltas")
    return {"levels": values[:5], **dict(zip(names, values[5:])), "anchors": parts.forward.anchors.asnumpy(),
            "rows": parts.forward.propose.levels}


@pytest.mark.parametrize("level", range(5))
def test_features(outputs, stored, level):
    expected = stored[f"feature_{'pool' if level == 4 else level}"]
    assert relative_error(outputs["levels"][level][:, ::32, ::4, ::4], expected) < RELATIVE


def test_anchors(outputs, stored):
    assert len(outputs["anchors"]) == stored["num_anchors"]
    np.testing.assert_array_equal(outputs["anchors"][::97], stored["anchors_every_97th"])


@pytest.mark.parametrize("level", range(5))
def test_rpn_outputs(outputs, stored, level):
    height, width = outputs["levels"][level].shape[2:]
    rows = slice(*outputs["rows"][level][:2])
    # torchvision's layout (B, A, H, W) and (B, 4 A, H, W).
    logits = outputs["logits"][:, rows].reshape(2, height, width, -1).transpose(0, 3, 1, 2)
    deltas = outputs["deltas"][:, rows].reshape(2, height, width, -1).transpose(0, 3, 1, 2)
    assert relative_error(logits[:, :, ::2, ::2], stored[f"rpn_logits_{level}"]) < RELATIVE
    assert relative_error(deltas[:, :, ::4, ::4], stored[f"rpn_deltas_{level}"]) < RELATIVE


@pytest.mark.parametrize("image", range(2))
def test_proposals(outputs, stored, image):
    expected = stored[f"proposals_{image}"]
    index = twins(outputs["proposals"][image][outputs["valid"][image]], expected)
    assert (index >= 0).mean() >= 0.99
    # The order must be the same, except for neighbours with equal scores.
    order = index[index >= 0]
    assert (np.diff(order) > 0).mean() >= 0.99
    assert np.abs(np.argsort(np.argsort(order)) - np.arange(len(order))).max() <= 2


def test_pooled_features(outputs, stored):
    assert relative_error(outputs["pooled"][:, ::32], stored["pooled_first64"]) < RELATIVE


def test_head_outputs(outputs, stored):
    # torchvision's background is class 0. Here the background is the last class and has no deltas.
    expected = stored["class_logits_first64"]
    assert relative_error(outputs["class_logits"], np.roll(expected, -1, axis=1)) < RELATIVE
    expected = stored["box_deltas_first64"].reshape(2 * FIRST, -1, 4)[:, 1:]
    assert relative_error(outputs["box_deltas"], expected) < RELATIVE
