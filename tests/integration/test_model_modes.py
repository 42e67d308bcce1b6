"""The detector in graph mode and in PyNative mode, on a canvas of 64 x 96."""
import mindspore as ms
import numpy as np
import pytest

from src.detector import build_detector
from src.models.faster_rcnn import InferenceForward
from tests.helpers.small_detector import CANVAS, NUM_CLASSES, PROPOSALS, small_batch, small_config


@pytest.fixture(scope="module")
def inference():
    """Boxes and scores of the two images in graph mode and in PyNative mode."""
    ms.set_device("CPU")
    cfg = small_config()
    network = build_detector(cfg, NUM_CLASSES)
    outputs = []
    for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE):
        ms.set_context(mode=mode)
        forward = InferenceForward(network, cfg, CANVAS)
        forward.set_train(False)
        outputs.append(tuple(output.asnumpy() for output in forward(*small_batch()[:2])))
    return outputs


def test_inference_stays_within_the_images(inference):
    boxes, scores = inference[0]
    assert boxes.shape == (2, PROPOSALS, NUM_CLASSES, 4)
    assert scores.shape == (2, PROPOSALS, NUM_CLASSES)
    assert (scores >= 0).all()
    assert (scores.sum(2) <= 1).all()
    assert (scores.max((1, 2)) > 0).all()
    for image, (height, width) in enumerate(((64, 96), (40, 70))):
        assert (boxes[image] >= 0).all()
        assert (boxes[image] <= [width, height, width, height]).all()


def test_inference_is_the_same_operator_by_operator(inference):
    for compiled, interpreted in zip(*inference):
        np.testing.assert_allclose(interpreted, compiled, rtol=1e-3, atol=1e-3)
