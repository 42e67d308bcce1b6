"""src/detector.py: what a detector is built with."""
import numpy as np
import pytest

from src.detector import build_detector
from src.errors import UserError
from tests.helpers.small_detector import NUM_CLASSES, small_config


def values(network):
    return {p.name: p.asnumpy() for p in network.get_parameters()}


def test_a_detector_whose_weights_come_later_reads_no_pretrained_file():
    cfg = small_config(pretrained="nowhere.ckpt")
    with pytest.raises(UserError, match=r"there is no file 'nowhere\.ckpt'"):
        build_detector(cfg, NUM_CLASSES)
    expected = values(build_detector(small_config(), NUM_CLASSES))
    found = values(build_detector(cfg, NUM_CLASSES, pretrained=False))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_backbone(frozen):
    network = build_detector(small_config(frozen=frozen, frozen_2stage=False), NUM_CLASSES)
    trained = {p.name.split(".")[0] for p in network.trainable_params()}
    assert {"rpn_head", "box_head"} <= trained
    assert ("backbone" in trained) != frozen
