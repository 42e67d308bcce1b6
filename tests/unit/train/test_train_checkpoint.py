"""src/checkpoint.py, saver.py and resume.py: saved state is restored, and checkpoints that do not fit are rejected."""
import logging
import os
import shutil
import subprocess
import sys
import zlib
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from src.checkpoint import (
    Checkpoint,
    check_progress,
    is_intact,
    load_moments,
    load_weights,
    read_checkpoint,
    write_checkpoint,
)
from src.errors import UserError
from src.run.signals import Stopped
from src.train.loop import stop_if_asked
from src.train.resume import find_checkpoint, restore, seed_of
from src.train.saver import Saver, TrainState
from src.train.step import TrainStep, build_optimizer, build_scaler, set_learning_rate
from tests.helpers.paths import ROOT
from tests.helpers.runs import run_folder, schedule, settings
from tests.helpers.skipping import skip_or_fail


class BoxHead(nn.Cell):
    def __init__(self, classes):
        super().__init__()
        self.fc = nn.Dense(4, 5)
        self.classes = nn.Dense(5, classes + 1)
        self.deltas = nn.Dense(5, 4 * classes)


class Network(nn.Cell):
    """Layers with the detector's names; the first convolution is frozen."""

    def __init__(self, classes=3, channels=2):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.norm = nn.BatchNorm2d(channels)
        self.box_head = BoxHead(classes)
        self.conv.weight.requires_grad = False


def build(seed, classes=3, channels=2):
    """Return a network and its optimizer, with random weights, statistics and momenta."""
    network = Network(classes, channels)
    cfg = SimpleNamespace(type="momentum", weight_decay=0.1, momentum=0.9, nesterov=False, filter_bias_and_bn=True)
    optimizer = build_optimizer(cfg, network.trainable_params())
    rng = np.random.default_rng(seed)
    for parameter in [*network.get_parameters(), *optimizer.moments]:
        parameter.set_data(Tensor(rng.normal(size=parameter.shape).astype(np.float32)))
    return network, optimizer


class SmallStep(TrainStep):
    """The parts of a training step that checkpoints use, for a small network."""

    def __init__(self, network, optimizer, kind="static"):
        self.network, self.optimizer = network, optimizer
        self.scaler = build_scaler(SimpleNamespace(ms_loss_scaler=kind, ms_loss_scaler_value=256.0, mix=False))


def save_checkpoint(path, network, optimizer, progress):
    """Write the content of a run's checkpoint, with the given progress."""
    write_checkpoint(path, {p.name: p for p in SmallStep(network, optimizer).parameters()}, progress)


def contents(network, optimizer):
    return {p.name: p.asnumpy().copy() for p in [*network.get_parameters(), *optimizer.moments]}


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def save_entries(path, network, change):
    """Write the network's weights after `change`, a function of {name: array}."""
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
    return {"epoch": epoch, "epoch_images": 0, "global_step": 10 * epoch, "evaluated": 0, "best_ap": 0.5, "loss_scale": 1.0,
            "seed": 7, "skipped_steps": 0}


def test_a_checkpoint_that_lost_its_end_is_damaged(path):
    network, optimizer = build(0)
    incomplete = at_epoch(1)
    del incomplete["seed"]
    save_checkpoint(path, network, optimizer, incomplete)
    with pytest.raises(UserError, match="damaged.*seed"):
        check_progress(read_checkpoint(path))


def test_weights_momenta_and_progress_come_back(path, tmp_path):
    network, optimizer = build(0)
    progress = {"epoch": 3, "epoch_images": 12, "global_step": 2**33, "evaluated": 2, "best_ap": 0.375, "loss_scale": 65536.0,
                "seed": 2**32 - 1, "skipped_steps": 4}
    save_checkpoint(path, network, optimizer, progress)
    assert os.listdir(tmp_path) == ["a.ckpt"]
    stored = read_checkpoint(path)
    check_progress(stored)
    assert stored.progress == progress and stored.class_names is None and stored.has_checksum
    other, other_optimizer = build(1)
    assert load_weights(other, stored) == []
    load_moments(other_optimizer, stored)
    assert_equal(contents(other, other_optimizer), contents(network, optimizer))


def test_a_step_after_loading_equals_a_step_without_saving(path):
    network, optimizer = build(0)
    save_checkpoint(path, network, optimizer, at_epoch(1))
    other, other_optimizer = build(1)
    stored = read_checkpoint(path)
    load_weights(other, stored)
    load_moments(other_optimizer, stored)
    gradients = tuple(Tensor(np.full(p.shape, 0.5, np.float32)) for p in optimizer.parameters)
    for each in (optimizer, other_optimizer):
        set_learning_rate(each, 0.1)
        each(gradients)
    assert_equal(contents(other, other_optimizer), contents(network, optimizer))


def test_saving_again_replaces_the_file(path, tmp_path):
    network, optimizer = build(0)
    save_checkpoint(path, network, optimizer, at_epoch(1))
    save_checkpoint(path, network, optimizer, at_epoch(2))
    assert read_checkpoint(path).progress == at_epoch(2)
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
    assert stored.progress == at_epoch(1)
    for name, value in expected.items():
        np.testing.assert_array_equal({**stored.weights, **stored.moments}[name], value)
    # A later save overwrites the leftovers of the failed one.
    save_checkpoint(path, network, optimizer, at_epoch(3))
    assert read_checkpoint(path).progress == at_epoch(3)


def test_weights_alone_have_no_progress(path):
    network, _ = build(0)
    ms.save_checkpoint(network, path)
    assert read_checkpoint(path).progress == {}


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
    sentence = refusal(load_weights, network, read_checkpoint(path))
    assert path in sentence
    assert "norm.moving_mean" in sentence


def test_an_unknown_weight(path):
    network, _ = build(0)
    save_entries(path, network, lambda entries: entries.update({"mask_head.weight": np.zeros((2, 3), np.float32)}))
    sentence = refusal(load_weights, network, read_checkpoint(path))
    assert path in sentence
    assert "mask_head.weight" in sentence


def test_a_weight_of_another_shape(path):
    save_checkpoint(path, *build(0, channels=7), at_epoch(1))
    sentence = refusal(load_weights, build(1)[0], read_checkpoint(path), allow_other_classes=True)
    for part in (path, "norm.", "(7,)", "(2,)"):
        assert part in sentence


def test_other_classes_are_refused_unless_allowed(path, log):
    trained, optimizer = build(0, classes=7)
    save_checkpoint(path, trained, optimizer, at_epoch(1))
    network, other_optimizer = build(1, classes=3)
    stored, before = read_checkpoint(path), contents(network, other_optimizer)
    sentence = refusal(load_weights, network, stored)
    assert "box_head.classes." in sentence
    assert "classes" in sentence

    skipped = load_weights(network, stored, allow_other_classes=True)
    assert sorted(skipped) == ["box_head.classes.bias", "box_head.classes.weight", "box_head.deltas.bias",
                               "box_head.deltas.weight"]
    assert all(name in log() for name in skipped)
    for parameter in network.get_parameters():
        expected = before[parameter.name] if parameter.name in skipped else stored.weights[parameter.name]
        np.testing.assert_array_equal(parameter.asnumpy(), expected)


def test_a_missing_momentum(path):
    """A layer that was frozen is now trained."""
    network, optimizer = build(0)
    save_checkpoint(path, network, optimizer, at_epoch(1))
    network.conv.weight.requires_grad = True
    cfg = SimpleNamespace(type="momentum", weight_decay=0.1, momentum=0.9, nesterov=False, filter_bias_and_bn=True)
    sentence = refusal(load_moments, build_optimizer(cfg, network.trainable_params()), read_checkpoint(path))
    assert path in sentence
    assert "moments.conv.weight" in sentence


def resume(path, network, optimizer, state, steps_per_epoch=20, kind="static", **changes):
    """Restore the checkpoint like train.py, in a run that it does not belong to, unless resume_ckpt is `auto`."""
    changes = {"resume_ckpt": path, **changes}
    changes = {"save_dir": os.path.dirname(path), **changes}
    run, step = run_folder(**changes), SmallStep(network, optimizer, kind)
    found = find_checkpoint(settings(**changes), run)
    del changes["save_dir"]
    restore(found, run, step, state, schedule(steps_per_epoch, **changes), ["a", "b", "c"])
    return step


def save(folder, network, optimizer, state, kind="static", names=("a", "b", "c"), scale=None):
    """Save like a run with 20 steps per epoch and 2 images per step; returns the path."""
    step = SmallStep(network, optimizer, kind)
    if scale:
        step.scaler.scale_value.set_data(Tensor(scale[0], ms.float32))
        step.scaler.counter.set_data(Tensor(scale[1], ms.int32))
    plan = schedule(20)
    with run_folder(folder) as run:
        saver = Saver(run, step, state, plan, list(names))
        saver.save()
    assert (saver.saved_step, saver.failure) == (state.global_step, None)
    return run.checkpoint(*plan.position(state.global_step))


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("step", [60, 67])
def test_a_run_goes_on_at_the_next_step(tmp_path, log, kind, step):
    network, optimizer = build(0)
    state = TrainState(9, step, 5, 2, 0.25)
    path = save(tmp_path, network, optimizer, state, kind, scale=(1024.0, 17) if kind == "dynamic" else None)
    assert os.path.basename(path) == ("net_b_epoch3_rank0.ckpt" if step == 60 else "net_b_epoch4_step7_rank0.ckpt")

    other, other_optimizer = build(1)
    resumed = TrainState(9)
    resumed_step = resume(path, other, other_optimizer, resumed, kind=kind)
    assert resumed == state
    assert resumed_step.loss_scale_state() == ({"loss_scale": 1024.0, "loss_scale_counter": 17} if kind == "dynamic"
                                               else {"loss_scale": 256.0})
    assert_equal(contents(other, other_optimizer), contents(network, optimizer))
    assert "resuming after epoch 3 " + ("and 14 images of" if step == 67 else "of") in log()


@pytest.mark.parametrize(("steps_per_epoch", "batch_size", "accumulate_steps", "step"), [
    (40, 1, 1, 120 + 14), (10, 4, 1, 30 + 3), (2, 5, 1, 6 + 1), (20, 1, 2, 60 + 7), (10, 2, 2, 30 + 3), (2, 5, 4, 6 + 0)])
def test_another_number_of_images_a_step_goes_on_behind_the_same_image(tmp_path, steps_per_epoch, batch_size, accumulate_steps,
                                                                       step):
    """14 images of epoch 4 are done. If they are no whole number of steps, some images are repeated; no image is skipped."""
    network, optimizer = build(0)
    path = save(tmp_path, network, optimizer, TrainState(9, global_step=67))
    state = TrainState(9)
    resume(path, network, optimizer, state, steps_per_epoch, batch_size=batch_size, accumulate_steps=accumulate_steps)
    assert state.global_step == step


@pytest.mark.parametrize("why", ["weights alone", "other classes", "other names"])
def test_weights_that_training_starts_from(tmp_path, log, why):
    network, optimizer = build(0, classes=7 if why == "other classes" else 3)
    if why == "weights alone":
        path = str(tmp_path / "a.ckpt")
        ms.save_checkpoint(network, path)
    else:
        path = save(tmp_path, network, optimizer, TrainState(9, 20), names=["a", "b", "d"] if why == "other names" else "abcdefg")
    other, other_optimizer = build(1)
    momenta = [m.asnumpy().copy() for m in other_optimizer.moments]
    initial = other.box_head.classes.weight.asnumpy().copy()
    state = TrainState(9)
    resume(path, other, other_optimizer, state)
    assert state == TrainState(9)
    np.testing.assert_array_equal(other.box_head.fc.weight.asnumpy(), network.box_head.fc.weight.asnumpy())
    kept = network.box_head.classes.weight.asnumpy() if why == "weights alone" else initial
    np.testing.assert_array_equal(other.box_head.classes.weight.asnumpy(), kept)
    for moment, value in zip(other_optimizer.moments, momenta):
        np.testing.assert_array_equal(moment.asnumpy(), value)
    assert "step 0" in log()


# Entry names of versions before 0.7.0, which were stored with {name: number or text}.
EARLIER_ENTRIES = ["conv.weight", "norm.moving_mean", "norm.moving_variance", "norm.gamma", "norm.beta", "box_head.fc.weight",
                   "box_head.fc.bias", "box_head.classes.weight", "box_head.classes.bias", "box_head.deltas.weight",
                   "box_head.deltas.bias", "moments.norm.gamma", "moments.norm.beta", "moments.box_head.fc.weight",
                   "moments.box_head.fc.bias", "moments.box_head.classes.weight", "moments.box_head.classes.bias",
                   "moments.box_head.deltas.weight", "moments.box_head.deltas.bias"]
EARLIER_VALUES = {"epoch": 3, "epoch_images": 14, "global_step": 67, "skipped_steps": 5, "evaluated": 2, "best_ap": 0.25,
                  "seed": 9, "loss_scale": 1024.0, "loss_scale_counter": 17, "class_names": '["a", "b", "c"]'}


def test_a_checkpoint_of_earlier_versions_is_resumed(path):
    network, optimizer = build(0)
    arrays = contents(network, optimizer)
    assert sorted(arrays) == sorted(EARLIER_ENTRIES)
    ms.save_checkpoint([{"name": name, "data": Tensor(arrays[name])} for name in EARLIER_ENTRIES], path,
                       append_dict=EARLIER_VALUES, crc_check=True)
    other, other_optimizer = build(1)
    state = TrainState(9)
    step = resume(path, other, other_optimizer, state, kind="dynamic")
    assert state == TrainState(9, 67, 5, 2, 0.25)
    assert step.loss_scale_state() == {"loss_scale": 1024.0, "loss_scale_counter": 17}
    assert_equal(contents(other, other_optimizer), arrays)


@pytest.mark.parametrize(("progress", "names", "seed"), [
    ({"seed": 7}, ["circle"], 7), ({"seed": 7}, None, 7), ({"seed": 7}, ["square"], 1234), ({}, ["circle"], 1234)])
def test_the_seed_of_a_checkpoint_is_that_of_the_run_that_goes_on(progress, names, seed):
    checkpoint = Checkpoint("net.ckpt", {}, {}, {}, progress, names, True)
    assert seed_of(checkpoint, SimpleNamespace(seed=1234), ["circle"]) == seed


def test_the_newest_checkpoint_of_other_classes_is_refused(tmp_path):
    path = save(tmp_path, *build(0, classes=7), TrainState(9, 20), names="abcdefg")
    sentence = refusal(resume, str(tmp_path / "x"), *build(1), TrainState(9), resume_ckpt="auto")
    assert path in sentence and "other classes" in sentence and "--save_dir" in sentence


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    """The system clock runs backwards."""
    network, optimizer = build(0)
    for step in (20, 27, 40, 47, 60, 67):
        os.utime(save(tmp_path, network, optimizer, TrainState(9, step)), (1e9 - step, 1e9 - step))
    names = [os.path.basename(path)[len("net_b_"):-len("_rank0.ckpt")] for path in run_folder(tmp_path).checkpoints()]
    assert names == ["epoch4_step7", "epoch3", "epoch3_step7", "epoch2", "epoch2_step7"]


def flip(path, position):
    with open(path, "r+b") as file:
        file.seek(position, os.SEEK_SET if position >= 0 else os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0x10]))


def test_the_checksum_is_that_of_mindspore_and_of_zlib(path, tmp_path):
    save_checkpoint(path, *build(0), at_epoch(1))
    data = (tmp_path / "a.ckpt").read_bytes()
    assert data[-17:-10] == b"crc_num" and int.from_bytes(data[-10:], "big") == zlib.crc32(data[:-17])
    assert is_intact(path)
    stored = read_checkpoint(path)
    assert set(ms.load_checkpoint(path, crc_check=True)) == {*stored.weights, *stored.moments, *stored.progress}


@pytest.mark.parametrize("position", [0, 100, 1000, -18, -17, -10, -1])
def test_one_flipped_bit_is_found(path, position):
    save_checkpoint(path, *build(0), at_epoch(1))
    flip(path, position)
    assert not is_intact(path)
    sentence = refusal(read_checkpoint, path)
    assert path in sentence and "damaged" in sentence


def test_files_without_a_checksum_are_read(path):
    ms.save_checkpoint(build(0)[0], path)
    assert not is_intact(path)
    stored = read_checkpoint(path)
    assert "conv.weight" in stored.weights and not stored.has_checksum


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["norm.moving_variance", "moments.norm.gamma", "box_head.fc.weight"])
def test_values_that_are_not_finite_are_neither_written_nor_read(tmp_path, path, log, name, value):
    network, optimizer = build(0)
    good = save(tmp_path, network, optimizer, TrainState(9, 20))
    [parameter] = [p for p in [*network.get_parameters(), *optimizer.moments] if p.name == name]
    array = parameter.asnumpy().copy()
    array.flat[-1] = value
    parameter.set_data(Tensor(array))
    with run_folder(tmp_path, keep_checkpoint_max=1) as run:
        saver = Saver(run, SmallStep(network, optimizer), TrainState(9, 40), schedule(20), ["a", "b", "c"])
        saver.begin(good)
        sentence = refusal(saver.save)
    bad = run.checkpoint(2)
    assert sentence == (f"{bad} is not written, as {name} has values that are not finite; start again from {good} with a smaller "
                        "lr_init.")
    assert run.checkpoints() == [good]

    # The format of an earlier version.
    entries = [{"name": p.name, "data": p} for p in [*network.get_parameters(), *optimizer.moments]]
    ms.save_checkpoint(entries, bad, append_dict=at_epoch(2), crc_check=True)
    sentence = refusal(read_checkpoint, bad)
    assert bad in sentence and f"{name} has values that are not finite" in sentence
    state = TrainState(9)
    resume(str(tmp_path / "x"), *build(1), state, resume_ckpt="auto", save_dir=str(tmp_path))
    assert state.global_step == 20 and f"passed over: {bad}" in log()


@pytest.mark.parametrize(("epoch", "step", "moved"), [
    (0, 0, ["epoch2_step7_rank0", "epoch2_rank0", "epoch10_rank0", "best"]),
    (1, 6, ["epoch2_step7_rank0", "epoch2_rank0", "epoch10_rank0"]),
    (1, 7, ["epoch2_rank0", "epoch10_rank0"]), (2, 1, ["epoch10_rank0"]), (10, 0, [])])
def test_checkpoints_of_later_steps_are_moved_away(tmp_path, log, epoch, step, moved):
    """The best checkpoint is of epoch 1. Files that were moved earlier stay."""
    network, optimizer = build(0)
    folder = tmp_path / "checkpoint"
    names = ["epoch2_step7_rank0", "epoch2_rank0", "epoch10_rank0", "best"]
    (folder / "superseded_1").mkdir(parents=True)
    (folder / "superseded_1" / "net_b_epoch10_rank0.ckpt").write_text("of an earlier run")
    for name in names:
        save_checkpoint(str(folder / f"net_b_{name}.ckpt"), network, optimizer, at_epoch(1))
    run = run_folder(tmp_path)
    run.supersede(run.later_checkpoints(epoch, step))
    left = {path.name for path in folder.glob("*.ckpt")}
    assert left == {f"net_b_{name}.ckpt" for name in names if name not in moved}
    assert {path.name for path in folder.glob("superseded_2/*")} == {f"net_b_{name}.ckpt" for name in moved}
    assert (folder / "superseded_1" / "net_b_epoch10_rank0.ckpt").read_text() == "of an earlier run"
    lines = [line for line in log().splitlines() if "superseded" in line]
    assert len(lines) == bool(moved) and all(f"net_b_{name}.ckpt" in lines[0] for name in moved)


def test_with_more_images_a_step_the_new_checkpoint_is_the_latest(tmp_path):
    """The first checkpoint, step 7 of 20, stays until the resumed run has saved one: step 2 of 5."""
    network, optimizer = build(0)
    path = save(tmp_path, network, optimizer, TrainState(9, 67))
    state, plan = TrainState(9), schedule(5, batch_size=8)
    state.restore(read_checkpoint(path).progress, plan)
    assert plan.position(state.global_step) == (3, 1)
    with run_folder(tmp_path, keep_checkpoint_max=1) as run:
        saver = Saver(run, SmallStep(network, optimizer), state, plan, ["a", "b", "c"])
        saver.begin(path)
        assert run.checkpoints() == [path]
        state.advance(True)
        saver.save()
        assert run.checkpoints() == [run.checkpoint(3, 2)]
    assert [name for name in os.listdir(run.checkpoint_folder) if name.startswith("superseded")] == ["superseded_1"]


def test_a_checkpoint_that_cannot_be_moved_away_does_not_fail_the_save(tmp_path, log):
    """Here it has gone. Before, the save of the new checkpoint counted as failed."""
    path = save(tmp_path, *build(0), TrainState(9, 67))
    with run_folder(tmp_path) as run:
        saver = Saver(run, SmallStep(*build(0)), TrainState(9, 20), schedule(20), ["a", "b", "c"])
        saver.begin("")
        os.remove(path)
        saver.save()
        assert saver.failure is None and saver.later == [] and run.checkpoints() == [run.checkpoint(1)]
    assert log().count(f"training began before {path}, but it cannot be moved away (No such file or directory)") == 1


@pytest.fixture
def blocked(tmp_path):
    """A Saver whose save has failed, as a folder has the checkpoint's name, and its run folder."""
    with run_folder(tmp_path) as run:
        saver = Saver(run, SmallStep(*build(0)), TrainState(9, 20), schedule(20), ["a", "b", "c"])
        os.mkdir(run.checkpoint(1))
        saver.save()
        yield saver, run


def test_a_failed_save_is_tried_again_before_a_signal_ends_the_run(blocked):
    saver, run = blocked
    assert saver.saved_step is None
    os.rmdir(run.checkpoint(1))
    with pytest.raises(Stopped):
        stop_if_asked(SimpleNamespace(status=143), saver)
    assert run.checkpoints() == [run.checkpoint(1)]


def test_a_failure_lasts_until_a_checkpoint_of_the_run_is_written(blocked):
    saver, run = blocked
    assert saver.failure == f"{run.checkpoint(1)} could not be written (Is a directory)"
    assert saver.save_best() and saver.failure
    os.rmdir(run.checkpoint(1))
    saver.save()
    assert saver.failure is None
    # A best checkpoint that could not be written is also a failure.
    os.remove(run.best_checkpoint)
    os.mkdir(run.best_checkpoint)
    assert not saver.save_best() and run.best_checkpoint in saver.failure


def test_the_folder_is_made_again(tmp_path):
    with run_folder(tmp_path) as run:
        saver = Saver(run, SmallStep(*build(0)), TrainState(9, 20), schedule(20), ["a", "b", "c"])
        saver.begin("")
        assert os.listdir(run.checkpoint_folder) == []
        os.rmdir(run.checkpoint_folder)
        saver.save()
        assert run.checkpoints() == [run.checkpoint(1)] and saver.failure is None


def test_what_stands_in_the_place_of_a_checkpoint(tmp_path, log):
    """A folder and a dangling link are ignored. A folder is not removed, and neither is a file of another user."""
    path = save(tmp_path, *build(0), TrainState(9, 20))
    run = run_folder(tmp_path, keep_checkpoint_max=1)
    os.symlink(tmp_path / "gone", run.checkpoint(2))
    os.mkdir(run.checkpoint(3))
    os.mkdir(os.path.join(run.checkpoint_folder, ".partial_folder"))
    state = TrainState(9)
    resume(str(tmp_path / "x"), *build(1), state, resume_ckpt="auto", save_dir=str(tmp_path))
    assert state.global_step == 20
    assert all(f"passed over: there is no checkpoint '{run.checkpoint(epoch)}'" in log() for epoch in (2, 3))
    with run:
        os.mkdir(run.checkpoint(0))
        run.remove_old_checkpoints()
    assert run.checkpoints() == [run.checkpoint(3), run.checkpoint(0)] and not os.path.exists(path)
    assert f"{run.checkpoint(0)} is beyond keep_checkpoint_max, but cannot be removed (Is a directory)" in log()


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_the_umask_decides_who_reads_a_checkpoint(path, umask, mode):
    before = os.umask(umask)
    try:
        save_checkpoint(path, *build(0), at_epoch(1))
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert os.stat(path).st_mode & 0o777 == mode


# Errors of a file system without modes and without fsync of folders; errno 1 is EPERM, 22 EINVAL.
SMALL_FILE_SYSTEM = """
#include <errno.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
extern "C" int chmod(const char*, mode_t) { errno = EPERM; return -1; }
extern "C" int fchmodat(int, const char*, mode_t, int) { errno = EPERM; return -1; }
extern "C" int fsync(int descriptor) {
    struct stat status;
    if (fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode)) { errno = EINVAL; return -1; }
    return syscall(SYS_fsync, descriptor);
}
"""
WRITE = """
import os, sys
from mindspore import Tensor
from src.checkpoint import read_checkpoint, write_checkpoint
try:
    os.chmod(".", 0o700)
    sys.exit("chmod works")
except PermissionError:
    write_checkpoint(sys.argv[1], {"fc.weight": Tensor([1.0, 2.0])})
assert read_checkpoint(sys.argv[1]).weights["fc.weight"].tolist() == [1, 2]
"""


def test_a_file_system_without_modes_and_without_fsync_of_folders(path, tmp_path):
    compiler = shutil.which("g++")
    if compiler is None:
        skip_or_fail("there is no g++")
    (tmp_path / "shim.cc").write_text(SMALL_FILE_SYSTEM)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "shim.so", tmp_path / "shim.cc"], check=True)
    done = subprocess.run([sys.executable, "-c", WRITE, path], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "LD_PRELOAD": str(tmp_path / "shim.so"), "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["a.ckpt", "shim.cc", "shim.so"]
