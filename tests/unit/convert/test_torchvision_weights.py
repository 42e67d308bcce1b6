"""src/convert/torchvision_weights.py and the two tools that use it."""
import sys

import mindspore as ms
import numpy as np
import pytest
from mindcv.models import create_model
from mindspore.nn.utils import no_init_parameters
from safetensors.numpy import load_file, save_file

from src.checkpoint import read_checkpoint
from src.config import load_config
from src.config.base import flat_settings
from src.config.schema import Backbone
from src.convert.torch_files import read_state, write_state
from src.convert.torchvision_weights import from_torchvision, num_classes_of, resnet_name, to_torchvision
from src.detector import build_empty_detector, read_pretrained
from src.errors import UserError
from src.models.backbone import build_backbone
from tests.helpers.parity.drawn_detector import CONFIG_V2
from tests.helpers.torchvision_files import BLOCKS, detector_shapes, detector_v2_shapes, random_state, resnet_shapes
from tools import convert_torchvision, export_torchvision

GAPS = [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
COCO_IDS = [i for i in range(1, 91) if i not in GAPS]


# What torchvision computes with the weights that it publishes.
TORCHVISION = {"backbone.name": "det_resnet18", "backbone.bn_eps": 1e-12, "backbone.stem_pool": "torchvision",
               "backbone.fpn.upsample_mode": "nearest", "bbox_head.roi_extractor.aligned": False,
               "data.eval_transforms.Resize.shortest": 800, "data.eval_transforms.Resize.longest": 1333}


def our_shapes(shapes, num_classes):
    """Return this project's names and shapes for the box head of a state dict."""
    heads = {"box_head.classes.": ("roi_heads.box_predictor.cls_score.", num_classes + 1),
             "box_head.deltas.": ("roi_heads.box_predictor.bbox_pred.", 4 * num_classes)}
    return {ours + part: (rows, *shapes[theirs + part][1:])
            for ours, (theirs, rows) in heads.items() for part in ("weight", "bias")}


def head_state(rows):
    shapes = {name: shape for name, shape in detector_shapes("resnet18", rows).items() if ".box_predictor." in name}
    return shapes, random_state(shapes)


@pytest.mark.parametrize("name", BLOCKS)
def test_every_resnet_fits_mindcv(name):
    """Each tensor of the state dict belongs to one parameter of the backbone, and all parameters are filled."""
    shapes = {**resnet_shapes(name), "fc.weight": (1000, 512 if name in ("resnet18", "resnet34") else 2048), "fc.bias": (1000,)}
    assert resnet_name(shapes, "file") == name
    state = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    with no_init_parameters():  # initialisation takes seconds
        model = create_model(name)
    weights = from_torchvision(state, {p.name: p.shape for p in model.get_parameters()}, "file")
    assert len(weights) == len(shapes)


@pytest.mark.parametrize(("rows", "ids"), [(2, [1]), (4, [1, 2, 3]), (91, COCO_IDS), (91, [*range(1, 91)])])
def test_the_background_moves_to_the_end_and_back(rows, ids):
    """The published head of 91 rows has 80 classes, or 90 if the configuration says so."""
    shapes, state = head_state(rows)
    assert num_classes_of(state, len(ids), "file") == len(ids)
    assert num_classes_of(state, None, "file") == (80 if rows == 91 else len(ids))
    weights = from_torchvision(state, our_shapes(shapes, len(ids)), "file")
    np.testing.assert_array_equal(weights["box_head.classes.bias"], [*ids, 0])
    np.testing.assert_array_equal(weights["box_head.classes.weight"][:, 5], [*ids, 0])
    deltas = [4 * i + j for i in ids for j in range(4)]
    np.testing.assert_array_equal(weights["box_head.deltas.bias"], deltas)
    np.testing.assert_array_equal(weights["box_head.deltas.weight"][:, 5], deltas)
    np.testing.assert_equal(to_torchvision(weights), state)


@pytest.mark.parametrize("old", [False, True])
def test_detector_there_and_back_by_command_line(tmp_path, run_tool, old):
    state = random_state(detector_shapes("resnet18", 91, old))
    save_file(state, tmp_path / "in.safetensors")
    for tool, source, output in ((convert_torchvision, "in.safetensors", "middle.ckpt"),
                                 (export_torchvision, "middle.ckpt", "out.safetensors")):
        status, _, errors = run_tool(tool, tmp_path / source, tmp_path / output)
        assert status == 0, errors
    settings = flat_settings(read_checkpoint(str(tmp_path / "middle.ckpt")).settings)
    assert TORCHVISION.items() <= settings.items() and settings["data.target_size"] == [[800, 1344], [1344, 800]]
    np.testing.assert_equal(load_file(tmp_path / "out.safetensors"), dict(zip(detector_shapes("resnet18", 91), state.values())))


def v2_network_shapes(rpn_convs, convs, fcs):
    """Return this project's names and shapes of the second network with ResNet18, three classes, and these numbers of layers."""
    head = {"name": "ConvFCHead", "num_convs": convs, "num_fcs": fcs}
    settings = {"backbone.name": "det_resnet18", "backbone.pretrained": False, "rpn_head.num_convs": rpn_convs,
                **{f"bbox_head.head.{key}": value for key, value in head.items()}}
    network = build_empty_detector(load_config(CONFIG_V2, [(key, value, "a test") for key, value in settings.items()]), 3)
    return {p.name: p.shape for p in network.get_parameters()}


@pytest.mark.parametrize("numbers", [(2, 4, 1), (1, 4, 1), (2, 1, 1), (1, 2, 2), (2, 0, 1)])
def test_heads_of_other_depths_there_and_back(numbers):
    """Numbers of convolutions in the RPN head, and of convolutions and dense layers in the box head."""
    state = random_state(detector_v2_shapes("resnet18", 4, *numbers))
    weights = from_torchvision(state, v2_network_shapes(*numbers), "file")
    np.testing.assert_equal(to_torchvision(weights), state)
    hidden = f"roi_heads.box_head.{numbers[1] + 1}.weight"
    np.testing.assert_array_equal(weights["box_head.fc1.weight"], state[hidden])


@pytest.mark.parametrize(("numbers", "tensor"), [((3, 4, 1), "has tensor rpn.head.conv.2.0.weight"),
                                                 ((2, 3, 1), "no tensor roi_heads.box_head.3.0.weight"),
                                                 ((2, 4, 2), "has tensor roi_heads.box_head.7.weight")])
def test_heads_that_differ_from_the_configuration_are_rejected(numbers, tensor):
    """torchvision's RPN head may have three convolutions. This project has one or two."""
    state = {name: np.broadcast_to(np.float32(0), shape) for name, shape in detector_v2_shapes("resnet18", 4, *numbers).items()}
    with pytest.raises(UserError, match=tensor):
        from_torchvision(state, v2_network_shapes(2, 4, 1), "file")


def test_backbone_serves_as_pretrained(tmp_path, run_tool):
    state = random_state({**resnet_shapes("resnet18"), "fc.weight": (1000, 512), "fc.bias": (1000,)})
    save_file(state, tmp_path / "in.safetensors")
    assert run_tool(convert_torchvision, tmp_path / "in.safetensors", tmp_path / "resnet18.ckpt")[0] == 0
    backbone = build_backbone(Backbone(name="det_resnet18"), pretrained=read_pretrained(str(tmp_path / "resnet18.ckpt")))
    weights = {p.name: p.asnumpy() for p in backbone.get_parameters()}
    for ours, theirs in (("layer3.0.down_sample.0.weight", "layer3.0.downsample.0.weight"),
                         ("layer4.1.bn2.moving_variance", "layer4.1.bn2.running_var"), ("bn1.gamma", "bn1.weight")):
        np.testing.assert_array_equal(weights[ours], state[theirs])


def test_without_kept_rows_the_background_has_no_deltas():
    weights = {"box_head.classes.weight": np.ones((3, 5)), "box_head.classes.bias": np.float32([10, 20, 0]),
               "box_head.deltas.weight": np.ones((8, 5)), "box_head.deltas.bias": np.arange(1, 9)}
    state = to_torchvision(weights)
    assert state["roi_heads.box_predictor.cls_score.bias"].tolist() == [0, 10, 20]
    assert state["roi_heads.box_predictor.bbox_pred.bias"].tolist() == [0, 0, 0, 0, *range(1, 9)]
    assert state["roi_heads.box_predictor.bbox_pred.weight"][:, 0].tolist() == [0] * 4 + [1] * 8


@pytest.mark.parametrize(("name", "shape", "sentence"), [
    ("roi_heads.box_predictor.bbox_pred.bias", None, "no tensor roi_heads.box_predictor.bbox_pred.bias"),
    ("roi_heads.mask_head.bias", (3,), "has tensor roi_heads.mask_head.bias"),
    ("roi_heads.box_predictor.cls_score.weight", (4, 9), r"shape \(4, 9\)"),
    ("roi_heads.box_predictor.bbox_pred.bias", (15,), "15 rows")])
def test_every_tensor_is_accounted_for(name, shape, sentence):
    shapes, state = head_state(4)
    state.pop(name, None)
    if shape:
        state[name] = np.zeros(shape)
    with pytest.raises(UserError, match=sentence):
        from_torchvision(state, our_shapes(shapes, 3), "file")


def test_refusals_are_one_sentence(tmp_path, run_tool, monkeypatch):
    with pytest.raises(UserError, match="not a Faster R-CNN"):
        num_classes_of({"backbone.body.conv1.weight": np.zeros(3)}, None, "file")
    with pytest.raises(UserError, match="4 classes with background, but data.nc is 7"):
        num_classes_of(head_state(4)[1], 7, "file")
    (tmp_path / "text.safetensors").write_text("no tensors")
    (tmp_path / "a.pth").write_bytes(b"")
    save_file(random_state({"layer1.0.conv1.weight": (2, 2)}), tmp_path / "part.safetensors")
    ms.save_checkpoint([{"name": "weight", "data": ms.Tensor(np.zeros(3))}], str(tmp_path / "other.ckpt"))
    monkeypatch.setitem(sys.modules, "torch", None)
    for tool, source, output, sentence in (
            (convert_torchvision, "none.safetensors", "a.ckpt", "there is no file"),
            (convert_torchvision, "text.safetensors", "a.ckpt", "is damaged"),
            (convert_torchvision, "a.pth", "a.ckpt", "is damaged"),
            (convert_torchvision, "part.safetensors", "a.ckpt", "no ResNet of torchvision: its four stages have [1, 0, 0, 0]"),
            (export_torchvision, "other.ckpt", "out.safetensors", "not a detector of this project")):
        status, _, text = run_tool(tool, tmp_path / source, tmp_path / output)
        assert status == 1 and sentence in text and text.count("\n") == 1, text


def test_pytorchs_own_format(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed, which only its own format needs")
    torch.save({"a": torch.nn.Parameter(torch.arange(3, dtype=torch.float64)), "n": torch.tensor(5)}, tmp_path / "a.pth")
    state = read_state(str(tmp_path / "a.pth"))
    assert state["a"].dtype == np.float32 and state["a"].tolist() == [0, 1, 2] and state["n"] == 5
    write_state(str(tmp_path / "b.pth"), state)
    assert torch.load(tmp_path / "b.pth", weights_only=True)["a"].tolist() == [0, 1, 2]
    torch.save({"model": {"a": torch.ones(3)}}, tmp_path / "c.pth")
    (tmp_path / "d.pth").write_bytes(b"nothing")
    for name, sentence in (("c", "not a plain state dict"), ("d", "damaged")):
        with pytest.raises(UserError, match=sentence):
            read_state(str(tmp_path / f"{name}.pth"))
