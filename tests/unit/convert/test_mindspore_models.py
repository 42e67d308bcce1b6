"""src/convert/mindspore_models.py, the code that reads checkpoints with it, and the tool for the reverse conversion."""
import filecmp
import json
import logging
import re
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from mindspore.nn.utils import no_init_parameters

from src.checkpoint import check_progress, read_checkpoint
from src.config import Config, load_config, with_settings
from src.config.command_line import parse_eval_args, with_checkpoint
from src.config.older import RECIPE
from src.config.schema import Backbone
from src.convert.mindspore_models import from_mindspore_models, older_name
from src.detector import build_detector, read_pretrained
from src.errors import UserError
from src.export.detector import load_detector
from src.models.backbone import build_backbone
from tests.helpers.older_implementation.drawn_checkpoint import drawn_weights, older_shapes, write
from tests.helpers.paths import ROOT
from tests.helpers.tiny_networks import tiny_config
from tests.helpers.torchvision_files import BLOCKS
from tools import export_mindspore_models


@pytest.fixture(scope="module")
def tiny():
    """The older implementation's checkpoint of the tests' tiny detector, {name: array}."""
    return drawn_weights(older_shapes("resnet18", 3, channels=32, hidden=64))


def test_the_checkpoints_of_these_tests_are_laid_out_as_the_older_implementations():
    """older_parameters.json has the names and shapes of one of its checkpoints, of ResNet50 and three classes."""
    listed = json.loads((Path(__file__).parent / "older_parameters.json").read_text())
    assert [(name, tuple(shape)) for name, shape in listed.items()] == list(older_shapes("resnet50", 3).items())


@pytest.mark.parametrize("resnet", BLOCKS)
def test_each_tensor_has_its_place_and_no_place_stays_empty(resnet):
    """The order is also that of the older implementation."""
    shapes = older_shapes(resnet, 80)
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    with no_init_parameters():  # initialisation takes seconds
        network = build_detector(with_settings(Config(), {"backbone.pretrained": False, "backbone.name": f"det_{resnet}"}), 80)
    ours = {parameter.name: parameter.shape for parameter in network.get_parameters()}
    assert {name: array.shape for name, array in from_mindspore_models(arrays, "file").items()} == ours
    assert [older_name(name) for name in ours] == list(shapes)


def test_a_checkpoint_goes_in_and_out_without_a_changed_bit(tmp_path, run_tool):
    """The tool reproduces a checkpoint of the older implementation: names, order, shapes, types, values."""
    path = write(tmp_path / "older.ckpt", drawn_weights(older_shapes("resnet50", 80)))
    status, _, errors = run_tool(export_mindspore_models, path, tmp_path / "back.ckpt")
    assert status == 0, errors
    assert filecmp.cmp(path, tmp_path / "back.ckpt", shallow=False)
    shutil.rmtree(tmp_path)


class OlderNetwork(nn.Cell):
    """Parameters with their names in the older implementation."""

    def __init__(self, arrays):
        super().__init__()
        self.everything = ms.ParameterTuple([ms.Parameter(ms.Tensor(array), name) for name, array in arrays.items()])


def test_what_its_trainer_adds_is_left_out(tmp_path, tiny, caplog):
    """The older implementation saves MindSpore's training cell, with momenta, counters, learning rates and the loss scale."""
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    network = OlderNetwork(tiny)
    optimizer = nn.Momentum(network.trainable_params(), [0.1, 0.01], momentum=0.9, weight_decay=1e-4)
    path = str(tmp_path / "trainer.ckpt")
    ms.save_checkpoint(nn.TrainOneStepWithLossScaleCell(network, optimizer, ms.Tensor(1.0, ms.float32)), path)
    added = set(ms.load_checkpoint(path)) - set(tiny)
    assert {"moments.bbox_head.bbox_cls.bias", "learning_rate", "momentum", "global_step", "scale_sense"} <= added
    checkpoint = read_checkpoint(path)
    check_progress(checkpoint)
    assert (checkpoint.moments, checkpoint.progress, checkpoint.class_names, checkpoint.num_classes) == ({}, {}, None, 3)
    np.testing.assert_equal({older_name(name): array for name, array in checkpoint.weights.items()}, tiny)
    assert caplog.messages == [f"{path} is a checkpoint of the older MindSpore implementation: its {len(tiny)} weights get this "
                               f"project's names; {len(added)} tensors of its optimizer are left out"]
    # It has the settings with which it was trained, and contradicts the default configuration.
    cfg, recipe = with_checkpoint(parse_eval_args([]), checkpoint.settings, path), load_config(ROOT / RECIPE)
    for found in (cfg, recipe):
        assert found.rpn_head.test_proposal.joint_nms_thresh == 0.7 and not found.bbox_head.clip_first
    assert cfg.backbone == parse_eval_args([]).backbone
    assert (cfg.rpn_head.test_proposal, cfg.bbox_head, cfg.data.eval_transforms, cfg.infer) == (
        recipe.rpn_head.test_proposal, recipe.bbox_head, recipe.data.eval_transforms, recipe.infer)
    caplog.clear()
    checkpoint.log_contradictions(cfg)
    assert not caplog.messages
    checkpoint.log_contradictions(parse_eval_args([]))
    assert "rpn_head.test_proposal.joint_nms_thresh" in caplog.text and "NormalizeImage.pad_first" in caplog.text


@pytest.mark.parametrize(("name", "array", "sentence"), [
    *((name, np.zeros(12, np.float32), f"has tensor {name}, which the older MindSpore implementation lacks, and") for name in (
        "box_head.deltas.bias", "bbox_head.mask_head.conv.weight", "moments.box_head.deltas.bias")),
    ("backbone.bottom_up.layer2.0.down_sample.1.moving_mean", None, "has no weight backbone.stages.layer2.0.down_sample.1."),
    ("bbox_head.bbox_cls.bias", None, "has no weight box_head.classes.bias"),
    ("bbox_head.head.fc7.bias", np.zeros(63, np.float32), "weight box_head.fc2.bias has shape (63,)"),
    ("backbone.bottom_up.layer1.2.conv1.weight", np.zeros((2, 2), np.float32), "has weight backbone.stages.layer1.2.conv1")])
def test_a_tensor_that_is_missing_or_of_another_network_or_program(tmp_path, tiny, name, array, sentence):
    arrays = {key: value for key, value in {**tiny, name: array}.items() if value is not None}
    path = write(tmp_path / "a.ckpt", arrays)
    with pytest.raises(UserError, match=re.escape(sentence)):
        load_detector(tiny_config(), read_checkpoint(path))


@pytest.mark.parametrize("names", ["older", "ours"])
def test_a_detector_serves_as_pretrained_backbone(tmp_path, tiny, names):
    path = write(tmp_path / "detector.ckpt", tiny if names == "older" else from_mindspore_models(tiny, "file"))
    cfg = Backbone(name="det_resnet18", pretrained=path)
    backbone = build_backbone(cfg, pretrained=read_pretrained(cfg.pretrained))
    found = {f"backbone.bottom_up.{parameter.name}": parameter.asnumpy() for parameter in backbone.get_parameters()}
    np.testing.assert_equal(found, {name: array for name, array in tiny.items() if name.startswith("backbone.bottom_up.")})


def test_the_tool_refuses_in_one_sentence(tmp_path, tiny, run_tool):
    write(tmp_path / "other.ckpt", {"weight": np.zeros(3, np.float32)})
    write(tmp_path / "short.ckpt", {name: array for name, array in tiny.items() if "fc6" not in name})
    for source, output, sentence in (("none.ckpt", "out.ckpt", "there is no checkpoint"),
                                     ("other.ckpt", "out.ckpt", "not a detector of this project"),
                                     ("short.ckpt", "out.ckpt", "fpn.lateral.0.weight has shape (32, 64, 1, 1)"),
                                     ("short.ckpt", "out.txt", "must end with .ckpt")):
        status, _, text = run_tool(export_mindspore_models, tmp_path / source, tmp_path / output)
        assert status == 1 and sentence in text and text.count("\n") == 1, text
        assert not (tmp_path / output).exists()
