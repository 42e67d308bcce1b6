"""src/cpu_kernels/network.py: the tiny detector with and without the kernels."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.config.load import load_config
from src.cpu_kernels import network as networks
from src.cpu_kernels import operators
from src.cpu_kernels.library import has_bf16_products
from src.cpu_kernels.network import KERNELS, use_kernels
from src.detector import build_detector
from src.models.faster_rcnn import InferenceForward, TrainingForward
from tests.helpers.kernel_calls import assert_close
from tests.helpers.paths import TINY_DETECTOR
from tests.helpers.small_detector import CANVAS, OLDER_RECIPE, small_batch
from tests.helpers.tiny_networks import V2 as TINY_V2

NUM_CLASSES = 3
OF_TRAINING = {operators.KernelMatcher, operators.KernelTrainingFeatures}
# A network whose backbone does not become one operator.
ONE_BY_ONE = {networks.KernelConv2d, networks.KernelConvBatchNorm}
KERNEL_CELLS = {*KERNELS.values(), networks.KernelFeaturesAndRPN, networks.KernelBoxHead, *ONE_BY_ONE}


def configuration(**settings):
    settings = {"device_target": "CPU", "mix": False, "seed": 1, "data.target_size": [64, 96], **settings}
    return load_config(TINY_DETECTOR, [(name, value, "a test") for name, value in settings.items()])


def detector(cfg, training, kernels):
    """Return a cell with the same weights in each call."""
    np.random.seed(1)
    network = build_detector(cfg, NUM_CLASSES)
    forward = TrainingForward(network, cfg, NUM_CLASSES, CANVAS) if training else InferenceForward(network, cfg, CANVAS)
    rng = np.random.default_rng(9)  # with these weights, rounding switches no ReLU
    for parameter in network.get_parameters():
        if "moving" not in parameter.name:
            noise = rng.normal(0, 0.02, parameter.shape).astype(np.float32)
            parameter.set_data(Tensor(parameter.asnumpy() + noise))
    if kernels:
        assert use_kernels(forward, cfg) is forward
    return forward.set_train(training)


def batch(forward):
    """Return arguments of the cell. Both canvases contain noise: in constant areas, rounding would decide the max pooling."""
    columns = (small_batch(forward.num_anchors, forward.num_proposals) if isinstance(forward, TrainingForward)
               else small_batch()[:2])
    return [Tensor(np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)), *columns[1:]]


def kinds(forward):
    return {type(cell) for _, cell in forward.cells_and_names()} & KERNEL_CELLS


def losses_and_gradients(forward):
    """Return the losses and a dict of gradients."""
    def total(*columns):
        losses = forward(*columns)
        return losses[0], losses

    parameters = forward.network.trainable_params()
    (_, losses), gradients = ms.value_and_grad(total, None, parameters, has_aux=True)(*batch(forward))
    return losses.asnumpy(), {p.name: g.asnumpy() for p, g in zip(parameters, gradients)}


FROZEN = {"backbone.frozen_bn": True}
V2 = {key.replace("__", "."): value for key, value in TINY_V2.items()}
OTHER = {"backbone.name": "mobilenet_v2_100", "bbox_head.roi_extractor.operator": "roi_align"}


@pytest.mark.parametrize(("mode", "settings"), [(ms.GRAPH_MODE, {}), (ms.PYNATIVE_MODE, {}), (ms.PYNATIVE_MODE, FROZEN),
                                                (ms.PYNATIVE_MODE, OTHER), (ms.GRAPH_MODE, V2), (ms.PYNATIVE_MODE, FROZEN | V2)],
                         ids=["graph", "without a graph", "frozen BatchNorm", "another backbone and RoIAlign operator", "v2",
                              "v2 with a frozen backbone"])
def test_training_is_the_same(kernels, mode, settings):
    """Losses, gradients and the statistics that BatchNorm stores are equal."""
    cfg = configuration(**settings)
    plain, fast = (detector(cfg, True, use) for use in (False, True))
    assert kinds(plain) == set() and kinds(fast) == KERNEL_CELLS - (set() if settings is OTHER else ONE_BY_ONE)
    assert type(fast.anchor_head.outputs) is networks.KernelRPNPatchHead
    assert [p.name for p in fast.network.get_parameters()] == [p.name for p in plain.network.get_parameters()]
    assert [p.name for p in fast.network.trainable_params()] == [p.name for p in plain.network.trainable_params()]
    # Without compilation, the plain cell takes a fifth of the time.
    ms.set_context(mode=ms.PYNATIVE_MODE)
    expected, expected_gradients = losses_and_gradients(plain)
    ms.set_context(mode=mode)
    losses, gradients = losses_and_gradients(fast)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    norms = {name: np.linalg.norm(gradient) for name, gradient in expected_gradients.items()}
    assert min(norms.values()) > 0
    for name, norm in norms.items():
        # MobileNetV2 has betas before a convolution and another BatchNorm; their gradients are pure rounding errors.
        size = max(norms.values()) if settings is OTHER else norm
        assert np.linalg.norm(gradients[name] - expected_gradients[name]) < 1e-4 * size, name
    for one, other in zip(fast.network.get_parameters(), plain.network.get_parameters()):
        if "moving" in one.name:
            frozen = "backbone.frozen_bn" in settings and other.name.startswith("backbone.")
            assert (other.asnumpy() == (1 if "variance" in other.name else 0)).all() == frozen
            assert_close(one.asnumpy(), other.asnumpy(), 1e-4)


@pytest.mark.parametrize(("settings", "least", "median"), [(FROZEN, 0.9, 0.99), (FROZEN | V2, 0.5, 0.75)], ids=["default", "v2"])
def test_training_in_bfloat16(kernels, settings, least, median):
    """Losses and gradients agree with float32 up to the rounding of the products.

    BatchNorm of few cells (12 on the last level) amplifies rounding: if only the weights are rounded to bfloat16, the smallest
    cosine of the v2 network is 0.65 and the median 0.89, with products in float32.
    """
    if not has_bf16_products():
        pytest.skip("the processor has no products of bfloat16")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    (losses, gradients), (expected, expected_gradients) = (
        losses_and_gradients(detector(configuration(mix=mix, **settings), True, True))
        for mix in (True, False))
    np.testing.assert_allclose(losses, expected, rtol=0.05)
    assert (losses != expected).all()
    cosines = {name: (gradients[name] * gradient).sum() / np.linalg.norm(gradients[name]) / np.linalg.norm(gradient)
               for name, gradient in expected_gradients.items()}
    # In the stem, after max pooling of noise, rounding has a larger effect than in later layers.
    assert cosines.pop("backbone.stages.conv1.weight") > 0.5
    assert min(cosines.values()) > least and np.median(list(cosines.values())) > median, cosines


@pytest.mark.parametrize("settings", [{}, OLDER_RECIPE, OTHER, V2], ids=["default", "older recipe", "another backbone", "v2"])
def test_inference_is_the_same_in_both_modes(kernels, settings):
    cfg = configuration(**settings)
    plain, fast = (detector(cfg, False, use) for use in (False, True))
    assert kinds(fast) == KERNEL_CELLS - OF_TRAINING - (set() if settings is OTHER else ONE_BY_ONE)
    results = []
    for mode, forward in ((ms.PYNATIVE_MODE, plain), (ms.PYNATIVE_MODE, fast), (ms.GRAPH_MODE, fast)):
        ms.set_context(mode=mode)
        results.append([output.asnumpy() for output in forward(*batch(forward))])
    for boxes, scores in results[1:]:
        np.testing.assert_allclose(boxes, results[0][0], rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(scores, results[0][1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [FROZEN, {}, V2])
def test_a_network_that_evaluates_first_can_train(kernels, settings):
    cfg = configuration(**settings)
    network = build_detector(cfg, NUM_CLASSES)
    use_kernels(InferenceForward(network, cfg, CANVAS), cfg)
    forward = use_kernels(TrainingForward(network, cfg, NUM_CLASSES, CANVAS), cfg).set_train()
    ms.set_context(mode=ms.PYNATIVE_MODE)
    assert np.isfinite(forward(*batch(forward)).asnumpy()).all()


def test_an_evaluation_during_training_computes_what_one_alone_does(kernels):
    """Bit-identical. In training each convolution of the backbone is replaced; in evaluation the backbone is one operator."""
    if not has_bf16_products():
        pytest.skip("the processor has no products of bfloat16, whose rounding shows the difference")
    cfg, results = configuration(mix=True, **{"backbone.frozen_bn": False}), []
    for trains_first in (False, True):
        forward = detector(cfg, True, trains_first)
        alone = use_kernels(InferenceForward(forward.network, cfg, CANVAS), cfg).set_train(False)
        results.append([output.asnumpy() for output in alone(*batch(alone))])
    for one, other in zip(*results):
        np.testing.assert_array_equal(one, other)


def test_nothing_changes_on_devices_or_without_a_library(kernels, monkeypatch):
    for device in ("Ascend", "GPU", "CPU"):
        if device == "CPU":
            monkeypatch.setattr("src.cpu_kernels.network.library", lambda: None)
        assert kinds(detector(configuration(device_target=device), True, True)) == set()
