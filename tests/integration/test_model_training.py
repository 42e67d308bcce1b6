"""Train the small detector for some steps on a canvas of 64 x 96 in PyNative mode."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.config import with_settings
from src.detector import build_detector
from src.models.faster_rcnn import TrainingForward
from src.run.distributed import SingleProcess
from src.train.step import StepResult, TrainStep
from tests.helpers.small_detector import CANVAS, NUM_ANCHORS, NUM_CLASSES, PROPOSALS, small_batch, small_config
from tests.helpers.tiny_networks import V2


@pytest.fixture(autouse=True)
def _operator_by_operator():
    ms.set_context(mode=ms.PYNATIVE_MODE)


def values(network):
    return {p.name: p.asnumpy().copy() for p in network.get_parameters()}


def untrained():
    """A network with frozen stem and first stage, its TrainingForward and a training step."""
    cfg = small_config(frozen_2stage=True)
    network = build_detector(cfg, NUM_CLASSES)
    forward = TrainingForward(network, cfg, NUM_CLASSES, CANVAS)
    return network, forward, TrainStep(network, cfg, NUM_CLASSES, SingleProcess(), {CANVAS: forward})


def run(step, batch):
    return StepResult.read(step.run(CANVAS, [batch], 0.02))


def test_training_changes_what_is_not_frozen_and_lowers_the_loss():
    network, forward, step = untrained()
    assert (forward.num_anchors, forward.num_proposals) == (NUM_ANCHORS, PROPOSALS)
    before, history = values(network), []
    for _ in range(4):
        losses, _, applied, _ = run(step, small_batch())
        assert applied
        assert losses.shape == (5,)
        np.testing.assert_allclose(losses[0], losses[1:].sum(), rtol=1e-5)
        history.append(losses)
    # Before training all logits are close to 0: log 2 per anchor and log (K + 1) per RoI.
    np.testing.assert_allclose(history[0][[1, 3]], np.log([2, NUM_CLASSES + 1]), rtol=0.1)
    assert history[-1][0] < 0.9 * history[0][0]
    for name, value in values(network).items():
        frozen = name.startswith(tuple(f"backbone.stages.{part}." for part in ("conv1", "bn1", "layer1")))
        assert np.array_equal(value, before[name]) == frozen, name


@pytest.mark.parametrize("frozen_bn", [True, False])
def test_the_second_network_in_float16_with_a_loss_scale(frozen_bn):
    """The losses equal fp32's up to two spacings of float16. A step updates the statistics of every part, but frozen_bn freezes
    the backbone's."""
    losses, changed = {}, {}
    for dtype in ("float16", "float32"):
        cfg = with_settings(small_config(frozen_bn=frozen_bn), {
            "mix": dtype == "float16", "mix_dtype": "float16", "ms_loss_scaler": "static", "backbone.fpn.norm": "bn",
            "rpn_head.num_convs": 2, "bbox_head.head": {"name": "ConvFCHead", "num_convs": 2, "num_fcs": 1}})
        network = build_detector(cfg, NUM_CLASSES)
        if dtype == "float16":
            weights = values(network)
        for parameter in network.get_parameters():
            parameter.set_data(Tensor(weights[parameter.name]))
        forward = TrainingForward(network, cfg, NUM_CLASSES, CANVAS)
        step = TrainStep(network, cfg, NUM_CLASSES, SingleProcess(), {CANVAS: forward})
        losses[dtype], _, applied, _ = run(step, small_batch())
        assert applied
        changed[dtype] = {name.split(".")[0] for name, value in values(network).items()
                          if ".moving_" in name and not np.array_equal(value, weights[name])}
    np.testing.assert_allclose(losses["float16"], losses["float32"], rtol=2**-9, atol=1e-6)
    assert (losses["float16"] != losses["float32"]).any()
    assert changed["float16"] == changed["float32"] == {"fpn", "box_head"} | ({"backbone"} if not frozen_bn else set())


def test_a_batch_without_any_box_is_background():
    """All anchors and RoIs are negative: losses log 2 and log (K + 1) before training, less after it, and no box loss."""
    network, _, step = untrained()
    image, valid_size, boxes, labels, mask, *priorities = small_batch()
    empty = [image, valid_size, boxes, labels, Tensor(np.zeros(mask.shape, bool)), *priorities]
    first, *_, last = [run(step, empty) for _ in range(3)]
    assert first.applied and last.applied
    np.testing.assert_allclose(first.losses[[1, 3]], np.log([2, NUM_CLASSES + 1]), rtol=0.1)
    np.testing.assert_array_equal([first.losses[[2, 4]], last.losses[[2, 4]]], np.zeros((2, 2)))
    assert (last.losses[[1, 3]] < first.losses[[1, 3]]).all()
    assert all(np.isfinite(value).all() for value in values(network).values())


@pytest.mark.parametrize("settings", [{}, {key.replace("__", "."): value for key, value in V2.items()}], ids=["v1", "v2"])
def test_devices_compute_the_losses_and_gradients_of_the_cpu(settings):
    """The RPN's loss on Ascend and GPU reads the outputs of all anchors; on the CPU, it reads patches around sampled anchors."""
    network = build_detector(with_settings(small_config(), settings), NUM_CLASSES)
    rng = np.random.default_rng(9)
    for parameter in network.trainable_params():  # losses of all kinds, and gradients through all layers
        parameter.set_data(Tensor(parameter.asnumpy() + rng.normal(0, 0.02, parameter.shape).astype(np.float32)))
    results = []
    for device in ("CPU", "Ascend"):
        cfg = with_settings(small_config(), {**settings, "device_target": device, "bbox_head.roi_extractor.operator": "gather"})
        forward = TrainingForward(network, cfg, NUM_CLASSES, CANVAS).set_train()
        assert forward.is_dense == (device != "CPU")

        def total(*columns, forward=forward):
            losses = forward(*columns)
            return losses[0], losses

        (_, losses), gradients = ms.value_and_grad(total, None, network.trainable_params(), has_aux=True)(*small_batch())
        results.append((losses.asnumpy(), [gradient.asnumpy() for gradient in gradients]))
    (losses, gradients), (expected, expected_gradients) = results
    assert (expected > 0).all()
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    for parameter, found, gradient in zip(network.trainable_params(), gradients, expected_gradients):
        assert np.linalg.norm(found - gradient) < 1e-6 * np.linalg.norm(gradient), parameter.name
