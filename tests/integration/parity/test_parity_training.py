"""Losses, gradients and updated weights equal torchvision's over three steps, in graph mode."""
import numpy as np
import pytest

from tests.helpers.parity.apart import apart
from tests.helpers.parity.drawn_detector import SAMPLE_ALL, drawn_network, torchvision_config
from tests.helpers.parity.three_steps import train_three_steps


def computed(stored):
    """Losses of three steps, gradient norms of the first step and weights after the last step, by torchvision's names."""
    # As on the CPU. With MindSpore's ROIAlign, one loss of the third step is off by 1.5%; the remaining losses agree as here.
    cfg = torchvision_config(320, 416, [*SAMPLE_ALL, ("bbox_head.roi_extractor.operator", "gather")])
    num_classes = int(stored["num_classes"])
    network = drawn_network(cfg, num_classes, int(stored["salt"]))
    annotations = [(stored[f"gt_boxes_{i}"], stored[f"gt_labels_{i}"]) for i in range(2)]
    return train_three_steps(network, cfg, num_classes, stored["image"], annotations, learning_rate=0.001)


@pytest.fixture(scope="module")
def three_steps(stored):
    return apart(computed, stored)


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
