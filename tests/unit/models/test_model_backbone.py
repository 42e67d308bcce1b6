"""src/models/backbone.py: strides, freezing, stem pooling, and weights from a file that src/detector.py reads."""

import mindspore as ms
import numpy as np
import pytest
from mindcv.models import create_model
from mindspore import Tensor, nn, ops

from src.config.schema import Backbone
from src.detector import read_pretrained
from src.errors import UserError
from src.models.backbone import build_backbone
from src.models.residual import PaddedMaxPool
from tests.helpers.kernel_calls import with_gradients

RESNET18 = Backbone(name="det_resnet18", pretrained=False, frozen_2stage=False)
IMAGE = np.random.default_rng(0).normal(size=(2, 3, 64, 96)).astype(np.float32)


def build(**changed):
    cfg = RESNET18.model_copy(update=changed)
    return build_backbone(cfg, pretrained=read_pretrained(cfg.pretrained))


def norms(backbone):
    return [cell for _, cell in backbone.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]


@pytest.mark.parametrize(("name", "channels"), [("det_resnet18", (64, 128, 256, 512)),
                                                ("det_resnet50", (256, 512, 1024, 2048))])
def test_strides_and_channels(name, channels):
    backbone = build(name=name)
    assert tuple(backbone.out_channels) == channels
    backbone.set_train(False)
    features = backbone(Tensor(IMAGE))
    assert [f.shape for f in features] == [(2, c, 64 // s, 96 // s) for c, s in zip(channels, (4, 8, 16, 32))]


def test_features_are_those_of_the_classification_network():
    """The last feature, averaged and classified, equals the output of mindcv's network."""
    model = create_model("resnet18")
    backbone = build()
    ms.load_param_into_net(backbone, model.parameters_dict())
    model.set_train(False)
    backbone.set_train(False)
    last = backbone(Tensor(IMAGE))[-1].asnumpy()
    logits = last.mean((2, 3)) @ model.classifier.weight.asnumpy().T + model.classifier.bias.asnumpy()
    np.testing.assert_allclose(model(Tensor(IMAGE)).asnumpy(), logits, rtol=1e-3, atol=1e-4)


STEM = ("conv1.", "bn1.", "layer1.")


@pytest.mark.parametrize(("frozen", "is_frozen", "moving"), [
    ((), lambda name: False, 20),  # 20 convolutions, each with a BatchNorm of two weights; there is no classifier
    (("frozen_2stage",), lambda name: name.startswith(STEM), 15),
    (("frozen_bn",), lambda name: name.endswith(("gamma", "beta")), 0),
    (("frozen",), lambda name: True, 0),
    (("frozen", "frozen_2stage"), lambda name: True, 0)])
def test_frozen_parts_keep_their_weights_and_statistics(frozen, is_frozen, moving):
    backbone = build(**dict.fromkeys(frozen, True))
    weights = {p.name for p in backbone.get_parameters() if "moving" not in p.name}
    assert len(weights) == 60
    assert {p.name for p in backbone.trainable_params()} == {name for name in weights if not is_frozen(name)}
    before = [(cell.moving_mean.asnumpy().copy(), cell.moving_variance.asnumpy().copy()) for cell in norms(backbone)]
    backbone.set_train()(Tensor(IMAGE))
    moved = [not np.array_equal(cell.moving_mean.asnumpy(), mean) and not np.array_equal(cell.moving_variance.asnumpy(), variance)
             for cell, (mean, variance) in zip(norms(backbone), before)]
    assert sum(moved) == moving


@pytest.mark.parametrize(("stem_pool", "pad"), [("mindcv", (0, 1)), ("torchvision", (1, 0))])
def test_stem_pool(stem_pool, pad):
    """A 3x3 maximum with stride 2. mindcv pads at the end; torchvision pads both sides, of which an even input needs one."""
    pool = build(stem_pool=stem_pool).stages.name_cells()["max_pool"]
    x = np.random.default_rng(1).uniform(size=(1, 1, 6, 8)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), pad, pad), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
    np.testing.assert_array_equal(pool(Tensor(x)).asnumpy(), windows.max((4, 5)))


class AfterReLU(nn.Cell):
    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def construct(self, x):
        return self.pool(ops.relu(x))


@pytest.mark.parametrize("size", [(32, 48), (9, 12), (8, 13), (1, 1)])
def test_stem_pool_of_torchvision_is_the_padded_pool(size):
    """Equal bits and, through the ReLU before it, equal gradients as MindSpore's padded pooling, with many ties and zeros."""
    rng = np.random.default_rng(3)
    for x in (rng.normal(size=(2, 3, *size)), rng.integers(-3, 3, (2, 3, *size)), -np.ones((2, 3, *size))):
        x = x.astype(np.float32)
        dout = rng.normal(size=(2, 3, *(-(-side // 2) for side in size))).astype(np.float32)
        padded = nn.MaxPool2d(kernel_size=3, stride=2, pad_mode="pad", padding=1)
        (found, [gradient]), (expected, [other]) = (with_gradients(AfterReLU(pool), dout, x)
                                                    for pool in (PaddedMaxPool(), padded))
        np.testing.assert_array_equal(found, expected)
        assert gradient.any() == (x > 0).any()
        np.testing.assert_array_equal(gradient, other)


def test_pretrained_file(tmp_path):
    model = create_model("resnet18")
    for parameter in model.get_parameters():
        parameter.set_data(Tensor(np.random.default_rng(2).normal(size=parameter.shape).astype(np.float32)))
    path = str(tmp_path / "resnet18.ckpt")
    ms.save_checkpoint(model, path)
    stored = {p.name: p.asnumpy() for p in model.get_parameters()}
    backbone = build(pretrained=path, bn_eps=0.5)
    assert {cell.eps for cell in norms(backbone)} == {0.5}
    names = [p.name for p in backbone.get_parameters()]
    assert set(stored) - set(names) == {"classifier.weight", "classifier.bias"}
    for parameter in backbone.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), stored[parameter.name])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints that do not fit: without a weight, with a weight of another shape, and a file that is no checkpoint."""
    folder = tmp_path_factory.mktemp("files")
    entries = [{"name": p.name, "data": p} for p in create_model("resnet18").get_parameters()]
    ms.save_checkpoint([e for e in entries if e["name"] != "layer2.0.conv1.weight"], str(folder / "missing.ckpt"))
    ms.save_checkpoint([{**e, "data": Tensor(np.zeros((3, 4), np.float32))} if e["name"] == "conv1.weight" else e
                        for e in entries], str(folder / "shape.ckpt"))
    (folder / "text.ckpt").write_bytes(b"not a checkpoint" * 50)
    return folder


@pytest.mark.parametrize(("changed", "words"), [
    ({"name": "det_resnet19"}, ["resnet19", "did you mean resnet18"]),
    ({"name": "squeezenet1_0"}, ["squeezenet1_0"]),
    ({"in_channels": [1, 2, 3, 4]}, ["[1, 2, 3, 4]", "[64, 128, 256, 512]"]),
    ({"name": "mobilenet_v3_small_100", "stem_pool": "torchvision"}, ["backbone.stem_pool"]),
    ({"name": "mobilenet_v3_small_100", "bn_eps": 0.5}, ["backbone.bn_eps"]),
    ({"pretrained": "none.ckpt"}, ["backbone.pretrained", "there is no checkpoint", "none.ckpt"]),
    ({"pretrained": "text.ckpt"}, ["backbone.pretrained", "text.ckpt is damaged or not a MindSpore checkpoint"]),
    ({"pretrained": "missing.ckpt"}, ["missing.ckpt", "layer2.0.conv1.weight is missing"]),
    ({"pretrained": "shape.ckpt"}, ["shape.ckpt", "conv1.weight", "(3, 4)", "(64, 3, 7, 7)"])], ids=str)
def test_errors_name_the_setting_and_the_reason(changed, words, files):
    if "pretrained" in changed:
        changed = {"pretrained": str(files / changed["pretrained"])}
    with pytest.raises(UserError) as error:
        build(**changed)
    assert "\n" not in str(error.value)
    assert [word for word in words if word not in str(error.value)] == []


@pytest.mark.parametrize(("name", "frozen", "norm", "warnings"), [
    ("mobilenet_v3_small_100", "", nn.SyncBatchNorm, 1), ("mobilenet_v3_small_100", "frozen_2stage", nn.SyncBatchNorm, 1),
    ("mobilenet_v3_small_100", "frozen_bn", nn.SyncBatchNorm, 0), ("mobilenet_v3_small_100", "", nn.BatchNorm2d, 0),
    ("convnext_tiny", "", nn.SyncBatchNorm, 0), ("resnext50_32x4d", "", nn.SyncBatchNorm, 0)])
def test_one_warning_if_batch_norm_stays_local_on_several_devices(caplog, name, frozen, norm, warnings):
    backbone = build_backbone(RESNET18.model_copy(update={"name": name, **({frozen: True} if frozen else {})}), norm)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == warnings
    assert all("of each device alone" in text and name in text for text in said)
    if name.startswith("resne"):
        assert not norms(backbone) and any(isinstance(cell, norm) for _, cell in backbone.cells_and_names())
