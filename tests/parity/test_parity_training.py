"""Losses, gradients and updated weights are torchvision's over three steps, in graph mode.

Every anchor that is not ignored and every proposal is sampled, so that nothing is random.
"""
import numpy as np
import pytest
from drawn_detector import drawn_network, torchvision_config
from mindspore import Tensor

from src.interchange.torchvision_weights import to_torchvision, torchvision_names
from src.models.faster_rcnn import TrainingForward
from src.train.optimizer import build_optimizer, set_learning_rate
from src.train.priorities import Priorities
from src.train.step import TrainOneStepCell, build_scaler

SAMPLE_ALL = [("rpn_head.rpn_label_assignment.rnp_sample_batch", 100_000), ("rpn_head.rpn_label_assignment.fg_fraction", 1.0),
              ("bbox_head.bbox_assigner.rois_per_batch", 100_000), ("bbox_head.bbox_assigner.fg_fraction", 1.0)]


def padded(stored, length):
    """Boxes (2, length, 4), labels (2, length) and mask of the two photographs."""
    boxes, labels = np.zeros((2, length, 4), np.float32), np.zeros((2, length), np.int32)
    mask = np.zeros((2, length), bool)
    for i in range(2):
        count = len(stored[f"gt_boxes_{i}"])
        boxes[i, :count], labels[i, :count], mask[i, :count] = stored[f"gt_boxes_{i}"], stored[f"gt_labels_{i}"], True
    return boxes, labels, mask


@pytest.fixture(scope="module")
def three_steps(stored):
    """Losses of three steps, gradient norms of the first, and the weights after the last, under torchvision's names."""
    cfg = torchvision_config(320, 416, SAMPLE_ALL)
    num_classes = int(stored["num_classes"])
    network = drawn_network(cfg, num_classes, int(stored["salt"]))
    forward = TrainingForward(network, cfg, num_classes)
    optimizer = build_optimizer(cfg.optimizer, network.trainable_params())
    set_learning_rate(optimizer, 0.001)
    step = TrainOneStepCell(forward, optimizer, build_scaler(cfg), cfg.clip_grads)
    priorities = Priorities(cfg, forward.num_anchors, forward.num_proposals)
    columns = [Tensor(c) for c in (stored["image"], np.float32([[320, 416]] * 2), *padded(stored, 16))]

    batch = (*columns, *priorities.draw(0, 16))
    _, gradients, _ = step.gradients(*batch)
    norms = {torchvision_names(p.name)[0]: np.linalg.norm(g.asnumpy()) for p, g in zip(optimizer.parameters, gradients)}
    losses = [step(*columns, *priorities.draw(i, 16))[0] for i in range(3)]
    weights = to_torchvision({p.name: p.asnumpy() for p in network.get_parameters()})
    return losses, norms, weights


@pytest.mark.parametrize(("step", "tolerance"), [(0, 1e-4), (1, 1e-4), (2, 1e-3)])
def test_losses(three_steps, stored, step, tolerance):
    losses = three_steps[0][step]
    np.testing.assert_allclose(losses[1:], stored[f"loss_step{step}"], rtol=tolerance)
    np.testing.assert_allclose(losses[0], stored[f"loss_step{step}"].sum(), rtol=tolerance)


def test_gradient_norms(three_steps, stored):
    norms = three_steps[1]
    assert set(norms) == set(stored["grad_names"])
    assert len(norms) == 72
    np.testing.assert_allclose([norms[name] for name in stored["grad_names"]], stored["grad_norms"], rtol=1e-3)


def test_weights_after_three_steps(three_steps, stored):
    names = [name[len("after_"):] for name in stored if name.startswith("after_")]
    assert len(names) == 4
    for name in names:
        np.testing.assert_allclose(three_steps[2][name].reshape(-1)[::997], stored[f"after_{name}"], rtol=0, atol=1e-4)
