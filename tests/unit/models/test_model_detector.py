"""src/detector.py: the parts of a detector."""
import numpy as np
import pytest

from src.checkpoint import write_checkpoint
from src.config import with_settings
from src.detector import build_detector, load_detector
from src.errors import UserError
from tests.helpers.small_detector import NUM_CLASSES, small_config


def values(network):
    return {p.name: p.asnumpy() for p in network.get_parameters()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_a_detector_whose_weights_come_later_reads_no_pretrained_file():
    cfg = small_config(pretrained="nowhere.ckpt")
    with pytest.raises(UserError, match=r"there is no file 'nowhere\.ckpt'"):
        build_detector(cfg, NUM_CLASSES)
    expected = values(build_detector(small_config(), NUM_CLASSES))
    found = values(build_detector(cfg, NUM_CLASSES, pretrained=False))
    assert_equal(found, expected)


@pytest.mark.parametrize("name", ["det_resnet18", "convnextv2_atto"])
def test_a_loaded_detector_has_the_weights_of_its_checkpoint(tmp_path, name):
    """Also for ConvNeXt, whose backbone uses its initial weights in computations."""
    cfg = with_settings(small_config(name=name), {"checkpoint_path": str(tmp_path / "a.ckpt"), "device_target": "CPU"})
    network = build_detector(with_settings(cfg, {"seed": 5}), NUM_CLASSES)
    write_checkpoint(cfg.checkpoint_path, {p.name: p for p in network.get_parameters()})
    expected, found = values(network), values(load_detector(cfg)[0])
    assert_equal(found, expected)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_backbone(frozen):
    network = build_detector(small_config(frozen=frozen, frozen_2stage=False), NUM_CLASSES)
    trained = {p.name.split(".")[0] for p in network.trainable_params()}
    assert {"rpn_head", "box_head"} <= trained
    assert ("backbone" in trained) != frozen
