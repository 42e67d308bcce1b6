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
from tests.helpers.kernel_calls import with_gradients

RESNET18 = Backbone(name="det_resnet18", pretrained=False, frozen_2stage=False)
IMAGE = np.random.default_rng(0).normal(size=(2, 3, 64, 96)).astype(np.float32)


def build(**changed):
    cfg = RESNET18.model_copy(update=changed)
    return build_backbone(cfg, pretrained=read_pretrained(cfg.pretrained))


def norms(backbone):
    return [cell for _, cell in backbone.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]


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


@pytest.mark.parametrize(("frozen", "is_frozen", "moving"), [
    ((), lambda name: False, 20),  # 20 convolutions, each with a BatchNorm of two weights; there is no classifier
    (("frozen_2stage",), lambda name: name.startswith(("conv1.", "bn1.", "layer1.")), 15),
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


@pytest.mark.parametrize("size", [(32, 48), (9, 12), (8, 13), (1, 1)])
def test_stem_pool_of_torchvision_is_the_padded_pool(size):
    """Equal bits and, through the ReLU before it, equal gradients as MindSpore's padded pooling, with many ties and zeros."""
    rng = np.random.default_rng(3)
    own = build(stem_pool="torchvision").stages.name_cells()["max_pool"]
    padded = nn.MaxPool2d(kernel_size=3, stride=2, pad_mode="pad", padding=1)
    for x in (rng.normal(size=(2, 3, *size)), rng.integers(-3, 3, (2, 3, *size)), -np.ones((2, 3, *size))):
        x = x.astype(np.float32)
        # Whole numbers: the gradients of overlapping windows are added in any order without rounding.
        dout = rng.integers(1, 9, (2, 3, *(-(-side // 2) for side in size))).astype(np.float32)
        (found, [gradient]), (expected, [other]) = (
            with_gradients(lambda x, pool=pool: pool(ops.relu(x)), dout, x) for pool in (own, padded))
        np.testing.assert_array_equal(found, expected)
        assert gradient.any() == (x > 0).any()
        np.testing.assert_array_equal(gradient, other)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints of a classification network: one that fits, one without a weight, one with a weight of another shape, and a
    file that is no checkpoint."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(2)
    entries = [{"name": p.name, "data": Tensor(rng.normal(size=p.shape).astype(np.float32))}
               for p in create_model("resnet18").get_parameters()]
    ms.save_checkpoint(entries, str(folder / "whole.ckpt"))
    ms.save_checkpoint([e for e in entries if e["name"] != "layer2.0.conv1.weight"], str(folder / "missing.ckpt"))
    ms.save_checkpoint([{**e, "data": Tensor(np.zeros((3, 4), np.float32))} if e["name"] == "conv1.weight" else e
                        for e in entries], str(folder / "shape.ckpt"))
    (folder / "text.ckpt").write_bytes(b"not a checkpoint" * 50)
    return folder


def test_pretrained_file(files):
    path = str(files / "whole.ckpt")
    backbone, stored = build(pretrained=path, bn_eps=0.5), ms.load_checkpoint(path)
    assert {cell.eps for cell in norms(backbone)} == {0.5}
    own = {p.name: p.asnumpy() for p in backbone.get_parameters()}
    assert set(stored) - set(own) == {"classifier.weight", "classifier.bias"}
    for name, value in own.items():
        np.testing.assert_array_equal(value, stored[name].asnumpy())


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
    with pytest.raises(UserError) as error:
        build(**{key: str(files / value) if key == "pretrained" else value for key, value in changed.items()})
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
