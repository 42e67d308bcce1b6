"""src/cpu_kernels/replace.py: the tiny detector with the kernels and without them."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.config.load import load_config
from src.cpu_kernels import operators
from src.cpu_kernels.replace import KERNELS, use_kernels
from src.detector import build_detector
from src.models.faster_rcnn import InferenceForward, TrainingForward
from src.models.roi_align import RoIAlign
from tests.helpers.paths import TINY_DETECTOR
from tests.helpers.small_detector import CANVAS, OLDER_RECIPE, small_batch

NUM_CLASSES = 3
OF_TRAINING = {operators.KernelMatcher, operators.KernelTrainingFeatures}
KERNEL_CELLS = {*KERNELS.values(), operators.KernelFunctionalConv2d, operators.KernelConv2d}
CONVOLUTIONS = {operators.KernelFunctionalConv2d, operators.KernelConv2d}


def configuration(**settings):
    # Large enough for convolutions of MIN_TILES and more; with the weights of this seed, rounding turns no ReLU on or off.
    settings = {"device_target": "CPU", "mix": False, "seed": 1, "data.target_size": [64, 96], **settings}
    return load_config(TINY_DETECTOR, [(name, value, "a test") for name, value in settings.items()])


def detector(cfg, training, kernels):
    """A cell of the same weights each time."""
    np.random.seed(1)
    network = build_detector(cfg, NUM_CLASSES)
    forward = TrainingForward(network, cfg, NUM_CLASSES, CANVAS) if training else InferenceForward(network, cfg, CANVAS)
    rng = np.random.default_rng(2)
    for parameter in network.get_parameters():
        if "moving" not in parameter.name:
            noise = rng.normal(0, 0.02, parameter.shape).astype(np.float32)
            parameter.set_data(Tensor(parameter.asnumpy() + noise))
    if kernels:
        assert use_kernels(forward, cfg) is forward
    return forward.set_train(training)


def batch(forward):
    """Arguments of the cell. Noise fills both canvases: in constant areas, rounding would decide what max-pooling takes."""
    columns = (small_batch(forward.num_anchors, forward.num_proposals) if isinstance(forward, TrainingForward)
               else small_batch()[:2])
    return [Tensor(np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)), *columns[1:]]


def kinds(forward):
    return {type(cell) for _, cell in forward.cells_and_names()} & KERNEL_CELLS


def losses_and_gradients(forward):
    """The losses and a dict of gradients."""
    def total(*columns):
        losses = forward(*columns)
        return losses[0], losses

    parameters = forward.trainable_params()
    (_, losses), gradients = ms.value_and_grad(total, None, parameters, has_aux=True)(*batch(forward))
    return losses.asnumpy(), {p.name: g.asnumpy() for p, g in zip(parameters, gradients)}


@pytest.mark.parametrize(("mode", "frozen_bn"), [(ms.GRAPH_MODE, True), (ms.PYNATIVE_MODE, False)])
def test_training_is_the_same(kernels, mode, frozen_bn):
    cfg = configuration(**{"backbone.frozen_bn": frozen_bn})
    plain, fast = (detector(cfg, True, use) for use in (False, True))
    assert kinds(plain) == set() and kinds(fast) == KERNEL_CELLS
    assert [p.name for p in fast.get_parameters()] == [p.name for p in plain.get_parameters()]
    assert [p.name for p in fast.trainable_params()] == [p.name for p in plain.trainable_params()]
    # Without a graph to compile, the plain one takes a fifth of the time.
    ms.set_context(mode=ms.PYNATIVE_MODE)
    expected, expected_gradients = losses_and_gradients(plain)
    ms.set_context(mode=mode)
    losses, gradients = losses_and_gradients(fast)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for name, gradient in expected_gradients.items():
        norm = np.linalg.norm(gradient)
        assert norm > 0, name
        assert np.linalg.norm(gradients[name] - gradient) < 1e-4 * norm, name


@pytest.mark.parametrize("settings", [{}, OLDER_RECIPE], ids=["default", "older recipe"])
def test_inference_is_the_same_in_both_modes(kernels, settings):
    cfg = configuration(**settings)
    plain, fast = (detector(cfg, False, use) for use in (False, True))
    assert kinds(fast) == KERNEL_CELLS - OF_TRAINING
    results = []
    for mode, forward in ((ms.PYNATIVE_MODE, plain), (ms.PYNATIVE_MODE, fast), (ms.GRAPH_MODE, fast)):
        ms.set_context(mode=mode)
        results.append([output.asnumpy() for output in forward(*batch(forward))])
    for boxes, scores in results[1:]:
        np.testing.assert_allclose(boxes, results[0][0], rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(scores, results[0][1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("settings", "left_out"), [
    ({"mix": True}, CONVOLUTIONS), ({"device_target": "Ascend"}, KERNEL_CELLS), ({"device_target": "GPU"}, KERNEL_CELLS)])
def test_where_kernels_are_not_used(kernels, settings, left_out):
    assert kinds(detector(configuration(**settings), True, True)) == KERNEL_CELLS - left_out


@pytest.mark.parametrize("training", [True, False])
def test_an_operator_that_is_asked_for_is_kept(kernels, training):
    """RoIs are pooled by MindSpore's operator in training and inference, also by a network that has been given kernels before."""
    cfg = configuration(**{"bbox_head.roi_extractor.operator": "roi_align"})
    plain, forward = (detector(cfg, training, use) for use in (False, True))
    use_kernels(InferenceForward(forward.network, cfg, CANVAS), cfg)
    roi_kernels = {operators.KernelTrainingFeatures, operators.KernelRoIAlign}
    assert kinds(forward) == KERNEL_CELLS - roi_kernels - (set() if training else OF_TRAINING)
    assert not [cell for _, cell in forward.cells_and_names() if type(cell) is RoIAlign]
    ms.set_context(mode=ms.PYNATIVE_MODE)
    outputs = [cell(*batch(cell)) for cell in (plain, forward)]
    expected, found = (output if isinstance(output, tuple) else (output,) for output in outputs)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one.asnumpy(), other.asnumpy(), rtol=1e-4, atol=1e-2)


def test_a_network_that_evaluates_first_can_train(kernels):
    cfg = configuration()
    network = build_detector(cfg, NUM_CLASSES)
    use_kernels(InferenceForward(network, cfg, CANVAS), cfg)
    forward = use_kernels(TrainingForward(network, cfg, NUM_CLASSES, CANVAS), cfg).set_train()
    ms.set_context(mode=ms.PYNATIVE_MODE)
    assert np.isfinite(forward(*batch(forward)).asnumpy()).all()


def test_without_a_library_nothing_changes(monkeypatch):
    monkeypatch.setattr("src.cpu_kernels.replace.library", lambda: None)
    assert kinds(detector(configuration(), True, True)) == set()
