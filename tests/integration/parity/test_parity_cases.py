"""One class and eighty, images without boxes, unusual boxes: the results are torchvision's.

This file uses the CPU kernels if a compiler can build them; test_parity_training.py uses the plain operators.
"""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.detector import Predictor
from src.evaluation.detections import select_detections
from tests.helpers.parity.apart import apart
from tests.helpers.parity.cases import CASES, LEARNING_RATE, annotations_of, images_of, stored_arrays, v2_resnet
from tests.helpers.parity.comparison import share_of_equal_detections
from tests.helpers.parity.drawn_detector import SAMPLE_ALL, drawn_network, torchvision_config, v2_config
from tests.helpers.parity.three_steps import train_three_steps


def computed(name):
    """Return our detections before training, and our three steps."""
    num_classes, salt, size, _ = CASES[name]
    resnet = v2_resnet(name)
    if resnet:
        cfg = v2_config(resnet, *size, len(annotations_of(name)[0][0]))
    else:
        cfg = torchvision_config(*size, [*SAMPLE_ALL, ("device_target", "CPU")])
    network = drawn_network(cfg, num_classes, salt, resnet)
    ms.set_context(mode=ms.PYNATIVE_MODE)  # compiling a graph for each case takes longer than using it
    images = images_of(name)
    boxes, scores = Predictor(network, cfg)(Tensor(images), Tensor(np.float32([size] * len(images))))
    infer = cfg.infer
    detections = [select_detections(*one, infer.conf_threshold, infer.nms_threshold, infer.max_box_num)
                  for one in zip(boxes, scores)]
    return detections, train_three_steps(network, cfg, num_classes, images, annotations_of(name), LEARNING_RATE)


@pytest.fixture(scope="module", params=list(CASES))
def case(request):
    """torchvision's stored results of a case; our detections before training; and our three steps."""
    stored = stored_arrays("cases")
    expected = {key.split("/")[1]: array for key, array in stored.items() if key.startswith(f"{request.param}/")}
    return expected, *apart(computed, request.param)


def test_detections(case):
    expected, detections, _ = case
    for i, found in enumerate(detections):
        wanted = [expected[f"{key}_{i}"] for key in ("boxes", "scores", "labels")]
        assert len(found[0]) == len(wanted[0]) == 100
        assert share_of_equal_detections(found, wanted) >= 0.99


def test_losses(case):
    expected, _, (losses, _, _) = case
    np.testing.assert_allclose(losses[:2, 1:], expected["losses"][:2], rtol=1e-4)
    np.testing.assert_allclose(losses[2, 1:], expected["losses"][2], rtol=1e-3)


def test_gradient_norms(case):
    expected, _, (_, norms, _) = case
    assert set(norms) == set(expected["names"])
    # The statistics of batches of BatchNorm, which only the second network has here, amplify rounding.
    rtol = 3e-3 if len(expected["statistics"]) else 1e-3
    np.testing.assert_allclose([norms[name] for name in expected["names"]], expected["norms"], rtol=rtol)


def test_batch_norm_statistics_after_training(case):
    expected, _, (_, _, weights) = case
    found = [np.linalg.norm(weights[name].astype(np.float64)) for name in expected["statistics_names"]]
    np.testing.assert_allclose(found, expected["statistics"], rtol=1e-4)
