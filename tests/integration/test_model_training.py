"""Train the small detector for some steps on a canvas of 64 x 96 in PyNative mode."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.detector import build_detector
from src.models.faster_rcnn import TrainingForward
from src.run.distributed import SingleProcess
from src.train.step import StepResult, TrainStep
from tests.helpers.small_detector import CANVAS, NUM_ANCHORS, NUM_CLASSES, PROPOSALS, small_batch, small_config


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
