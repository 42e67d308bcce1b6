"""src/detector.py and mixed precision: the parts of a detector, its weights, its canvases and its data types."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.checkpoint import read_checkpoint, write_checkpoint
from src.config import Config, with_settings
from src.dataset.shapes import draw_scene
from src.detector import Predictor, build_detector
from src.errors import UserError
from src.export.detector import detect, load_detector
from src.models.faster_rcnn import can_overflow, to_mixed_precision
from tests.helpers.small_detector import NUM_CLASSES, small_config
from tests.helpers.tiny_networks import V2, tiny_config, tiny_network

WIDE, UPRIGHT = [32, 64], [64, 32]


def assert_equal(found, expected):
    found, expected = ({p.name: p.asnumpy() for p in network.get_parameters()} for network in (found, expected))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_a_detector_whose_weights_come_later_reads_no_pretrained_file():
    cfg = small_config(pretrained="nowhere.ckpt")
    with pytest.raises(UserError, match=r"there is no checkpoint 'nowhere\.ckpt'"):
        build_detector(cfg, NUM_CLASSES)
    assert_equal(build_detector(cfg, NUM_CLASSES, pretrained=False), build_detector(small_config(), NUM_CLASSES))


@pytest.mark.parametrize("name", ["det_resnet18", "convnextv2_atto"])
def test_a_loaded_detector_has_the_weights_of_its_checkpoint(tmp_path, name):
    """Also for ConvNeXt, whose backbone uses its initial weights in computations."""
    cfg = with_settings(small_config(name=name), {"checkpoint_path": str(tmp_path / "a.ckpt"), "device_target": "CPU"})
    network = build_detector(with_settings(cfg, {"seed": 5}), NUM_CLASSES)
    write_checkpoint(cfg.checkpoint_path, {p.name: p for p in network.get_parameters()})
    assert_equal(load_detector(cfg, read_checkpoint(cfg.checkpoint_path)), network)


@pytest.mark.parametrize(("size", "canvas"), [((40, 90), WIDE), ((90, 40), UPRIGHT), ((50, 50), WIDE)])
def test_an_image_uses_the_canvas_that_gives_the_largest_scale(size, canvas):
    image = draw_scene(np.random.default_rng(3), *size)[0]
    found, expected = (detect(Predictor(tiny_network(cfg), cfg), image) for cfg in (
        tiny_config(data__target_size=[WIDE, UPRIGHT]), tiny_config(data__target_size=canvas)))
    assert len(expected[0]) > 3
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one, other)


def test_only_convolutions_and_dense_layers_are_in_mixed_precision():
    network, mixed = (nn.SequentialCell(nn.Conv2d(2, 3, 1, has_bias=True), nn.BatchNorm2d(3), nn.Flatten(), nn.Dense(3 * 16, 2))
                      for _ in range(2))
    ms.load_param_into_net(mixed, network.parameters_dict())
    x = Tensor(np.random.default_rng(0).normal(size=(2, 2, 4, 4)).astype(np.float32))
    for exact, cell, dtype in zip(network, to_mixed_precision(mixed), (ms.float16, ms.float32, ms.float32, ms.float16)):
        wanted, output = exact(x), cell(x)
        assert output.dtype == dtype
        # float16 has 11 bits.
        np.testing.assert_allclose(output.asnumpy(), wanted.asnumpy(), rtol=2**-7, atol=2**-7)
        assert (np.abs(output.asnumpy() - wanted.asnumpy()).max() > 0) == (dtype == ms.float16)
        x = wanted
    assert {parameter.dtype for parameter in mixed.get_parameters()} == {ms.float32}


def test_only_float16_can_overflow():
    cases = {("bfloat16", True): False, ("float16", True): True, ("float16", False): False}
    assert {key: can_overflow(with_settings(Config(), dict(zip(("mix_dtype", "mix"), key)))) for key in cases} == cases


def test_batch_norm_is_synchronised_in_every_part():
    cfg = tiny_config(**V2, device_target="Ascend")
    cells = [cell for _, cell in build_detector(cfg, 3, pretrained=False, num_processes=2).cells_and_names()]
    assert sum(isinstance(cell, nn.SyncBatchNorm) for cell in cells) == 20 + 8 + 2  # ResNet18, pyramid, box head
    assert not any(isinstance(cell, nn.BatchNorm2d) for cell in cells)
