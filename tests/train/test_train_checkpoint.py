"""src/train/checkpoint.py and src/train/state.py: what is saved comes back, and what does not fit is refused."""
import logging
import os
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.errors import UserError
from src.train.checkpoint import load_moments, load_weights, progress_of, read_checkpoint, save_checkpoint
from src.train.optimizer import build_optimizer, set_learning_rate
from src.train.state import TrainingState, load_run
from src.train.step import build_scaler


class BoxHead(nn.Cell):
    def __init__(self, classes):
        super().__init__()
        self.fc = nn.Dense(4, 5)
        self.classes = nn.Dense(5, classes + 1)
        self.deltas = nn.Dense(5, 4 * classes)


class Network(nn.Cell):
    """Named as the detector's layers; the first convolution is frozen."""

    def __init__(self, classes=3, channels=2):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.norm = nn.BatchNorm2d(channels)
        self.box_head = BoxHead(classes)
        self.conv.weight.requires_grad = False


def build(seed, classes=3, channels=2):
    """A network and its optimizer, all weights, statistics and momenta of which are random numbers."""
    network = Network(classes, channels)
    cfg = SimpleNamespace(type="momentum", weight_decay=0.1, momentum=0.9, nesterov=False, filter_bias_and_bn=True)
    optimizer = build_optimizer(cfg, network.trainable_params())
    rng = np.random.default_rng(seed)
    for parameter in [*network.get_parameters(), *optimizer.moments]:
        parameter.set_data(Tensor(rng.normal(size=parameter.shape).astype(np.float32)))
    return network, optimizer


def scaler(kind):
    return build_scaler(SimpleNamespace(ms_loss_scaler=kind, ms_loss_scaler_value=256.0))


def contents(network, optimizer):
    return {p.name: p.asnumpy().copy() for p in [*network.get_parameters(), *optimizer.moments]}


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def save_entries(path, network, change):
    """Write the weights of the network as `change`, a function of {name: array}, leaves them."""
    entries = {p.name: p.asnumpy() for p in network.get_parameters()}
    change(entries)
    ms.save_checkpoint([{"name": name, "data": Tensor(value)} for name, value in entries.items()], path)


def refusal(function, *arguments, **keywords):
    with pytest.raises(UserError) as error:
        function(*arguments, **keywords)
    sentence = str(error.value)
    assert "\n" not in sentence
    return sentence


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "a.ckpt")


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


def at_epoch(epoch):
    return {"epoch": epoch, "global_step": 10 * epoch, "best_ap": 0.5, "loss_scale": 1.0, "seed": 7, "skipped_steps": 0}


def test_a_checkpoint_that_lost_its_end_is_damaged(path):
    network, optimizer = build(0)
    incomplete = at_epoch(1)
    del incomplete["seed"]
    save_checkpoint(path, network, optimizer, incomplete)
    with pytest.raises(UserError, match="damaged.*seed"):
        progress_of(read_checkpoint(path), path)


def test_weights_momenta_and_progress_come_back(path, tmp_path):
    network, optimizer = build(0)
    progress = {"epoch": 3, "global_step": 2**33, "best_ap": 0.375, "loss_scale": 65536.0, "seed": 2**32 - 1,
                "skipped_steps": 4}
    save_checkpoint(path, network, optimizer, progress)
    assert os.listdir(tmp_path) == ["a.ckpt"]
    stored = read_checkpoint(path)
    assert progress_of(stored, path) == progress
    other, other_optimizer = build(1)
    assert load_weights(other, stored, path) == []
    load_moments(other_optimizer, stored, path)
    assert_equal(contents(other, other_optimizer), contents(network, optimizer))


def test_a_step_after_loading_equals_a_step_without_saving(path):
    network, optimizer = build(0)
    save_checkpoint(path, network, optimizer, at_epoch(1))
    other, other_optimizer = build(1)
    stored = read_checkpoint(path)
    load_weights(other, stored, path)
    load_moments(other_optimizer, stored, path)
    gradients = tuple(Tensor(np.full(p.shape, 0.5, np.float32)) for p in optimizer.parameters)
    for each in (optimizer, other_optimizer):
        set_learning_rate(each, 0.1)
        each(gradients)
    assert_equal(contents(other, other_optimizer), contents(network, optimizer))


def test_saving_again_replaces_the_file(path, tmp_path):
    network, optimizer = build(0)
    save_checkpoint(path, network, optimizer, at_epoch(1))
    save_checkpoint(path, network, optimizer, at_epoch(2))
    assert progress_of(read_checkpoint(path), path) == at_epoch(2)
    assert os.listdir(tmp_path) == ["a.ckpt"]


def test_a_failing_save_leaves_the_previous_file(path, monkeypatch):
    network, optimizer = build(0)
    save_checkpoint(path, network, optimizer, at_epoch(1))
    expected = contents(network, optimizer)

    def fail(source, target):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            save_checkpoint(path, *build(1), at_epoch(2))
    stored = read_checkpoint(path)
    assert progress_of(stored, path) == at_epoch(1)
    for name, value in expected.items():
        np.testing.assert_array_equal(stored[name].asnumpy(), value)
    # A later save succeeds over what the failed one left.
    save_checkpoint(path, network, optimizer, at_epoch(3))
    assert progress_of(read_checkpoint(path), path) == at_epoch(3)


def test_weights_alone_have_no_progress(path):
    network, _ = build(0)
    ms.save_checkpoint(network, path)
    assert progress_of(read_checkpoint(path), path) == {}


def test_files_that_are_no_checkpoint(path, tmp_path):
    assert path in refusal(read_checkpoint, path)
    assert str(tmp_path) in refusal(read_checkpoint, str(tmp_path))
    for content in (b"", b"not a checkpoint" * 100, bytes(1000)):
        (tmp_path / "a.ckpt").write_bytes(content)
        assert path in refusal(read_checkpoint, path)


def test_half_a_file_is_refused(path, tmp_path):
    save_checkpoint(path, *build(0), at_epoch(1))
    half = tmp_path / "half.ckpt"
    half.write_bytes((tmp_path / "a.ckpt").read_bytes()[:700])
    assert str(half) in refusal(read_checkpoint, str(half))


def test_a_missing_weight(path):
    network, _ = build(0)
    save_entries(path, network, lambda entries: entries.pop("norm.moving_mean"))
    sentence = refusal(load_weights, network, read_checkpoint(path), path)
    assert path in sentence
    assert "norm.moving_mean" in sentence


def test_an_unknown_weight(path):
    network, _ = build(0)
    save_entries(path, network, lambda entries: entries.update({"mask_head.weight": np.zeros((2, 3), np.float32)}))
    sentence = refusal(load_weights, network, read_checkpoint(path), path)
    assert path in sentence
    assert "mask_head.weight" in sentence


def test_a_weight_of_another_shape(path):
    save_checkpoint(path, *build(0, channels=7), at_epoch(1))
    sentence = refusal(load_weights, build(1)[0], read_checkpoint(path), path, allow_other_classes=True)
    for part in (path, "norm.", "(7,)", "(2,)"):
        assert part in sentence


def test_other_classes_are_refused_unless_allowed(path, log):
    trained, optimizer = build(0, classes=7)
    save_checkpoint(path, trained, optimizer, at_epoch(1))
    network, other_optimizer = build(1, classes=3)
    stored, before = read_checkpoint(path), contents(network, other_optimizer)
    sentence = refusal(load_weights, network, stored, path)
    assert "box_head.classes." in sentence
    assert "classes" in sentence

    skipped = load_weights(network, stored, path, allow_other_classes=True)
    assert sorted(skipped) == ["box_head.classes.bias", "box_head.classes.weight", "box_head.deltas.bias",
                               "box_head.deltas.weight"]
    assert all(name in log() for name in skipped)
    for parameter in network.get_parameters():
        expected = before[parameter.name] if parameter.name in skipped else stored[parameter.name].asnumpy()
        np.testing.assert_array_equal(parameter.asnumpy(), expected)


def test_a_missing_momentum(path):
    """As when a layer that was frozen is now trained."""
    network, optimizer = build(0)
    save_checkpoint(path, network, optimizer, at_epoch(1))
    network.conv.weight.requires_grad = True
    cfg = SimpleNamespace(type="momentum", weight_decay=0.1, momentum=0.9, nesterov=False, filter_bias_and_bn=True)
    sentence = refusal(load_moments, build_optimizer(cfg, network.trainable_params()), read_checkpoint(path), path)
    assert path in sentence
    assert "moments.conv.weight" in sentence


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_state_is_taken_up_after_the_last_epoch(path, log, kind):
    network, optimizer = build(0)
    state = TrainingState(9, scaler(kind))
    state.global_step, state.skipped_steps, state.best_ap = 60, 5, 0.25
    if kind == "dynamic":
        state.scaler.scale_value.set_data(Tensor(1024.0, ms.float32))
        state.scaler.counter.set_data(Tensor(17, ms.int32))
    save_checkpoint(path, network, optimizer, state.to_dict(epoch=3))

    other, other_optimizer = build(1)
    resumed = TrainingState(9, scaler(kind))
    stored = read_checkpoint(path)
    progress = load_run(other, other_optimizer, stored, progress_of(stored, path), path)
    resumed.take_up(progress, steps_per_epoch=20)
    assert resumed.to_dict(3) == state.to_dict(3)
    assert resumed.loss_scale == (1024 if kind == "dynamic" else 256)
    assert_equal(contents(other, other_optimizer), contents(network, optimizer))
    assert "after epoch 3" in log()
    # With twice as many steps an epoch, the fourth epoch starts at step 120.
    resumed.take_up(progress, steps_per_epoch=40)
    assert resumed.global_step == 120


@pytest.mark.parametrize("why", ["weights alone", "other classes"])
def test_weights_that_training_starts_from(path, log, why):
    network, optimizer = build(0, classes=7 if why == "other classes" else 3)
    if why == "other classes":
        save_checkpoint(path, network, optimizer, TrainingState(9, scaler("static")).to_dict(epoch=3))
    else:
        ms.save_checkpoint(network, path)
    other, other_optimizer = build(1)
    momenta = [m.asnumpy().copy() for m in other_optimizer.moments]
    stored = read_checkpoint(path)
    assert load_run(other, other_optimizer, stored, progress_of(stored, path), path) == {}
    np.testing.assert_array_equal(other.box_head.fc.weight.asnumpy(), network.box_head.fc.weight.asnumpy())
    for moment, value in zip(other_optimizer.moments, momenta):
        np.testing.assert_array_equal(moment.asnumpy(), value)
    assert "step 0" in log()
