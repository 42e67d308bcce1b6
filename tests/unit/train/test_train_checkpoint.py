"""src/checkpoint.py and src/train/state.py: saved state is restored, and checkpoints that do not fit are rejected."""
import errno
import json
import logging
import os
import re
import shutil
import stat
import zlib
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from src import __version__
from src.checkpoint import (
    NOT_STORED,
    Checkpoint,
    check_progress,
    is_intact,
    load_moments,
    read_checkpoint,
    stored_settings,
    write_checkpoint,
)
from src.checkpoint import SETTINGS as SETTINGS_TEXT
from src.config import Config, with_settings
from src.config.command_line import parse_infer_args, parse_train_args
from src.errors import UserError
from src.run.distributed import SingleProcess
from src.run.launch import Stopped
from src.train.loop import StepReader, stop_if_asked
from src.train.state import Saver, TrainState, find_checkpoint, seed_of
from src.train.step import TrainStep
from tests.helpers.runs import run_folder, schedule, settings

NAMES = ["a", "b", "c"]
SETTINGS = {"data": {"dataset_dir": "/d\udcff"}, "lr_init": 0.1}


class BoxHead(nn.Cell):
    def __init__(self, classes):
        super().__init__()
        self.fc = nn.Dense(4, 5)
        self.classes = nn.Dense(5, classes + 1)
        self.deltas = nn.Dense(5, 4 * classes)


class Network(nn.Cell):
    """Layers with the detector's names; the first convolution is frozen unless `frozen` is False."""

    def __init__(self, classes, frozen):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.box_head = BoxHead(classes)
        self.conv.weight.requires_grad = not frozen


class SmallStep(TrainStep):
    """A training step of `Network` with random weights, statistics and momenta."""

    def __init__(self, seed, classes=3, frozen=True, scaler="static"):
        network = Network(classes, frozen)
        super().__init__(network, settings(ms_loss_scaler=scaler), classes, SingleProcess(), {(1, 1): network})
        rng = np.random.default_rng(seed)
        for parameter in self.parameters():
            parameter.set_data(Tensor(rng.normal(size=parameter.shape).astype(np.float32)))

    def contents(self):
        """Return {name: array} of the parameters in a checkpoint."""
        return {p.name: p.asnumpy().copy() for p in self.parameters()}

    def write(self, path, progress):
        """Write the content of a run's checkpoint, with the given progress."""
        write_checkpoint(path, {p.name: p for p in self.parameters()}, progress)


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


def saver_of(run, step, state, steps_per_epoch=20, **changes):
    return Saver(run, step, state, schedule(steps_per_epoch, **changes), NAMES, SETTINGS)


def resume(path, step, steps_per_epoch=20, save_dir="", **changes):
    """Resume like train.py, in a run that the checkpoint does not belong to, unless resume_ckpt is `auto`; returns the state."""
    changes = {"resume_ckpt": path, **changes}
    state = TrainState(9)
    with run_folder(save_dir or os.path.join(os.path.dirname(path), "resumed"), **changes) as run:
        saver_of(run, step, state, steps_per_epoch, **changes).begin(find_checkpoint(settings(**changes), run))
    return state


def save(folder, step, state, names=NAMES):
    """Save like a run with 20 steps per epoch and 2 images per step; returns the path."""
    with run_folder(folder) as run:
        saver = Saver(run, step, state, schedule(20), list(names), SETTINGS)
        saver.save()
    assert (saver.saved_step, saver.failure) == (state.global_step, None)
    return run.checkpoint(*saver.schedule.position(state.global_step))


def test_a_missing_value_and_a_missing_momentum(path):
    """A layer that was frozen is now trained."""
    incomplete = at_epoch(1)
    del incomplete["seed"]
    SmallStep(0).write(path, incomplete)
    stored = read_checkpoint(path)
    assert "seed" in refusal(check_progress, stored)
    sentence = refusal(load_moments, SmallStep(1, frozen=False).optimizer, stored)
    assert path in sentence and "moments.conv.weight" in sentence


@pytest.mark.parametrize(("scaler", "scale"), [("dynamic", {"loss_scale": 1024.0, "loss_scale_counter": 17}),
                                               ("static", {"loss_scale": 256.0})])
@pytest.mark.parametrize("global_step", [60, 67])
def test_a_run_continues_at_the_next_step(tmp_path, log, scaler, scale, global_step):
    step, other = SmallStep(0, scaler=scaler), SmallStep(1, scaler=scaler)
    step.restore_loss_scale(scale)
    state = TrainState(9, global_step, 5, 2, 0.25, 1, 1)
    path = save(tmp_path, step, state)
    assert os.path.basename(path) == f"net_b_epoch{3 if global_step == 60 else '4_step7'}_rank0.ckpt"
    assert resume(path, other) == state
    assert other.loss_scale_state() == scale
    np.testing.assert_equal(other.contents(), step.contents())
    assert "resuming after epoch 3 " + ("and 14 images of" if global_step == 67 else "of") in log()


@pytest.mark.parametrize(("steps_per_epoch", "batch_size", "accumulate_steps", "global_step"), [
    (40, 1, 1, 120 + 14), (10, 4, 1, 30 + 3), (2, 5, 1, 6 + 1), (10, 2, 2, 30 + 3), (2, 5, 4, 6 + 0)])
def test_another_number_of_images_per_step_continues_after_the_same_image(tmp_path, steps_per_epoch, batch_size, accumulate_steps,
                                                                          global_step):
    """14 images of epoch 4 are done. If they are no whole number of steps, some images are repeated; no image is skipped."""
    path = save(tmp_path, SmallStep(0), TrainState(9, global_step=67))
    state = resume(path, SmallStep(1), steps_per_epoch, batch_size=batch_size, accumulate_steps=accumulate_steps)
    assert state.global_step == global_step


@pytest.mark.parametrize("names", [None, "abcdefg", "abd"], ids=["only weights", "other classes", "other names"])
def test_a_new_run_starts_from_weights(tmp_path, log, names):
    trained, step = SmallStep(0, classes=len(names or NAMES)), SmallStep(1)
    if names is None:
        path = str(tmp_path / "a.ckpt")
        ms.save_checkpoint(trained.network, path)
        assert read_checkpoint(path).progress == {} and not read_checkpoint(path).has_checksum
    else:
        path = save(tmp_path, trained, TrainState(9, 20), names)
    before, expected = step.contents(), trained.contents()
    assert resume(path, step) == TrainState(9)
    for name, value in step.contents().items():
        kept = name.startswith("moments.") or names and name.startswith(("box_head.classes", "box_head.deltas"))
        np.testing.assert_array_equal(value, before[name] if kept else expected[name], err_msg=name)
    assert f"training starts at step 0 from the weights of {path}" in log()


@pytest.mark.parametrize("names", ["abc", "abd", "abcdefg"])
@pytest.mark.parametrize("auto", ["", "auto"])
def test_weight_starts_at_step_0_unless_the_run_has_a_checkpoint(tmp_path, log, names, auto):
    trained, step, own = SmallStep(0, classes=len(names)), SmallStep(1), tmp_path / "own"
    path, before, expected = save(tmp_path, trained, TrainState(9, 20), names), step.contents(), trained.contents()
    assert resume(path, step, save_dir=str(own), resume_ckpt=auto, weight=path) == TrainState(9)
    for name, value in step.contents().items():
        kept = name.startswith("moments.") or names != "abc" and name.startswith(("box_head.classes", "box_head.deltas"))
        np.testing.assert_array_equal(value, before[name] if kept else expected[name], err_msg=name)
    assert f"training starts at step 0 from the weights of {path}\n" in log() + "\n"
    save(own, SmallStep(2), TrainState(9, 40))
    assert resume(path, step, save_dir=str(own), resume_ckpt=auto, weight=path) == TrainState(9, 40 if auto else 0)
    assert ("--weight is ignored" in log()) == bool(auto)
    assert "weight" in refusal(resume, path, step, weight="b.ckpt")


def test_the_log_names_the_alternative_of_resuming(tmp_path, log):
    path = save(tmp_path, SmallStep(0), TrainState(9, 20))
    resume(path, SmallStep(1))
    assert f"resuming after epoch 1 of {path}; --weight {path} instead starts a new training" in log()
    resume(path, SmallStep(1), resume_ckpt="auto", save_dir=str(tmp_path))
    assert log().count("--weight") == 1
    with run_folder(tmp_path) as run:  # fractions of the training move with the number of epochs
        saver = saver_of(run, SmallStep(1), TrainState(9))
        saver.settings = {"lr": {"milestones": ["2/3"]}}
        for before, count in ((3, 0), (2, 1)):
            saver.begin(read_checkpoint(path)._replace(settings={"epochs": before}))
            assert log().count("so the learning rate drops at other epochs") == count


def test_the_best_ap_belongs_to_a_validation_set(tmp_path, log):
    with run_folder(tmp_path) as run:
        saver = saver_of(run, SmallStep(0), TrainState(9, 20, best_ap=0.5, best_epoch=1, evals_since_best=2))
        saver.use_validation_set("one")
        saver.save()
        stored = read_checkpoint(run.checkpoint(1))
        for digest, ap in (("one", 0.5), ("other", -1.0), ("other", -1.0)):
            saver.state.best_ap = -1.0
            saver.begin(stored)
            saver.use_validation_set(digest)
            assert saver.state.best_ap == ap and (saver.state.evals_since_best == 2) == (ap > 0)
    assert log().count("the best AP so far, 0.5000, is of another validation set") == 2


def test_settings_are_stored_and_read(tmp_path):
    path = save(tmp_path, SmallStep(0), TrainState(9, 20))
    assert read_checkpoint(path).settings == SETTINGS and read_checkpoint(path).class_names == NAMES
    assert ms.load_checkpoint(path)["version"] == __version__
    changes = {"data.dataset_dir": "~/a", "device_target": "CPU", "output": "a.onnx"}
    cfg = with_settings(Config(), changes)
    stored = json.loads(json.dumps(stored_settings(cfg)))
    assert stored["data"]["dataset_dir"] == os.path.expanduser("~/a") and not NOT_STORED & stored.keys()
    assert with_settings(Config(), {**stored, **changes}) == cfg


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"data": 1}', "{" * 100_000])
def test_settings_that_are_none(path, text):
    ms.save_checkpoint([{"name": "a", "data": Tensor([1.0])}], path, append_dict={SETTINGS_TEXT: text}, crc_check=True)
    assert "is damaged or not a MindSpore checkpoint (its config cannot be used)" in refusal(read_checkpoint, path)


def test_settings_that_contradict_the_training_are_listed(log):
    cfg = parse_infer_args(["-o", "data.target_size=[320,320]", "infer.nms_threshold=0.3", "epochs=3",
                            "data.eval_transforms.item_transforms=[Resize: {shrink: area}, NormalizeImage: {}, "
                            "TransposeImage: {}, LabelsPadding: {padding_size: 9}]"])
    checkpoint = Checkpoint("a.ckpt", {}, {}, {}, {}, None, True, stored_settings(parse_train_args([])))
    checkpoint.log_contradictions(cfg)
    _, *rows = log().splitlines()
    assert [re.split("  +", row.strip()) for row in rows] == [
        ["setting", "training", "now"], ["data.target_size", "[768, 1280]", "[320, 320]"],
        ["data.eval_transforms.Resize.shrink", "'linear'", "'area'"]]
    checkpoint.log_contradictions(parse_infer_args([]))
    checkpoint._replace(settings=None).log_contradictions(cfg)
    assert len(log().splitlines()) == 4


# Entry names of versions before 0.7.0, which were stored with {name: number or text}.
EARLIER_ENTRIES = ["conv.weight", "norm.moving_mean", "norm.moving_variance", "norm.gamma", "norm.beta",
                   *(f"{prefix}{name}" for prefix in ("", "moments.") for name in (
                       "box_head.fc.weight", "box_head.fc.bias", "box_head.classes.weight", "box_head.classes.bias",
                       "box_head.deltas.weight", "box_head.deltas.bias")), "moments.norm.gamma", "moments.norm.beta"]
EARLIER_VALUES = {"epoch": 3, "epoch_images": 14, "global_step": 67, "skipped_steps": 5, "evaluated": 2, "best_ap": 0.25,
                  "seed": 9, "loss_scale": 1024.0, "loss_scale_counter": 17, "class_names": json.dumps(NAMES)}


def test_a_checkpoint_of_earlier_versions_is_resumed(path):
    step = SmallStep(1, scaler="dynamic")
    arrays = SmallStep(0).contents()
    assert sorted(arrays) == sorted(EARLIER_ENTRIES)
    ms.save_checkpoint([{"name": name, "data": Tensor(arrays[name])} for name in EARLIER_ENTRIES], path,
                       append_dict=EARLIER_VALUES, crc_check=True)
    assert resume(path, step) == TrainState(9, 67, 5, 2, 0.25)
    assert step.loss_scale_state() == {"loss_scale": 1024.0, "loss_scale_counter": 17}
    np.testing.assert_equal(step.contents(), arrays)


@pytest.mark.parametrize(("progress", "names", "seed"), [
    ({"seed": 7}, ["circle"], 7), ({"seed": 7}, None, 7), ({"seed": 7}, ["square"], 1234), ({}, ["circle"], 1234)])
def test_a_resumed_run_has_the_seed_of_its_checkpoint(progress, names, seed):
    checkpoint = Checkpoint("net.ckpt", {}, {}, {}, progress, names, True)
    assert seed_of(checkpoint, SimpleNamespace(seed=1234), ["circle"]) == seed


def test_the_newest_checkpoint_of_other_classes_is_refused(tmp_path):
    path = save(tmp_path, SmallStep(0, classes=7), TrainState(9, 20), "abcdefg")
    sentence = refusal(resume, path, SmallStep(1), resume_ckpt="auto", save_dir=str(tmp_path))
    assert path in sentence and "other classes" in sentence and "--save_dir" in sentence


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    """The system clock runs backwards."""
    for step in (20, 27, 40, 47, 60, 67):
        os.utime(save(tmp_path, SmallStep(0), TrainState(9, step)), (1e9 - step, 1e9 - step))
    names = [os.path.basename(path)[len("net_b_"):-len("_rank0.ckpt")] for path in run_folder(tmp_path).checkpoints()]
    assert names == ["epoch4_step7", "epoch3", "epoch3_step7", "epoch2", "epoch2_step7"]


def test_the_checksum_equals_mindspore_s_and_zlib_s_and_finds_one_flipped_bit(path, tmp_path):
    progress = {**at_epoch(1), "global_step": 2**33, "seed": 2**32 - 1}
    SmallStep(0).write(path, progress)
    data = (tmp_path / "a.ckpt").read_bytes()
    assert data[-17:-10] == b"crc_num" and int.from_bytes(data[-10:], "big") == zlib.crc32(data[:-17])
    stored = read_checkpoint(path)
    assert is_intact(path) and stored.has_checksum and stored.progress == progress
    assert set(ms.load_checkpoint(path, crc_check=True)) == {*stored.weights, *stored.moments, *stored.progress}
    for position in (0, 1000, -18, -17, -10, -1):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        (tmp_path / "a.ckpt").write_bytes(damaged)
        assert not is_intact(path)
        with pytest.raises(UserError, match=f"{path} is damaged"):
            read_checkpoint(path)


@pytest.mark.parametrize(("name", "value"), [
    ("norm.moving_variance", np.nan), ("moments.norm.gamma", np.inf), ("box_head.fc.weight", -np.inf)])
def test_values_that_are_not_finite_are_neither_written_nor_read(tmp_path, log, name, value):
    step = SmallStep(0)
    good = save(tmp_path, step, TrainState(9, 20))
    [parameter] = [p for p in step.parameters() if p.name == name]
    array = parameter.asnumpy().copy()
    array.flat[-1] = value
    parameter.set_data(Tensor(array))
    with run_folder(tmp_path, keep_checkpoint_max=1) as run:
        saver = saver_of(run, step, TrainState(9, 40))
        saver.good_start = good
        sentence = refusal(saver.save)
    bad = run.checkpoint(2)
    assert sentence == (f"{bad} is not written, as {name} has values that are not finite; start again from {good} with a smaller "
                        "lr_init.")
    assert run.checkpoints() == [good]

    # The format of an earlier version.
    ms.save_checkpoint([{"name": p.name, "data": p} for p in step.parameters()], bad, append_dict=at_epoch(2), crc_check=True)
    sentence = refusal(read_checkpoint, bad)
    assert bad in sentence and f"{name} has values that are not finite" in sentence
    state = resume(bad, SmallStep(1), resume_ckpt="auto", save_dir=str(tmp_path))
    assert state.global_step == 20 and f"passed over: {bad}" in log()


@pytest.mark.parametrize(("epoch", "step", "moved"), [
    (0, 0, ["epoch2_step7_rank0", "epoch2_rank0", "epoch10_rank0", "best"]),
    (1, 6, ["epoch2_step7_rank0", "epoch2_rank0", "epoch10_rank0"]),
    (1, 7, ["epoch2_rank0", "epoch10_rank0"]), (10, 0, [])])
def test_checkpoints_of_later_steps_are_moved_away(tmp_path, log, epoch, step, moved):
    """The best checkpoint is of epoch 1. Files that were moved earlier stay."""
    folder = tmp_path / "checkpoint"
    names = ["epoch2_step7_rank0", "epoch2_rank0", "epoch10_rank0", "best"]
    (folder / "superseded_1").mkdir(parents=True)
    (folder / "superseded_1" / "net_b_epoch10_rank0.ckpt").write_text("of an earlier run")
    for name in names:
        SmallStep(0).write(str(folder / f"net_b_{name}.ckpt"), at_epoch(1))
    run = run_folder(tmp_path)
    run.supersede(run.later_checkpoints(epoch, step))
    left = {path.name for path in folder.glob("*.ckpt")}
    assert left == {f"net_b_{name}.ckpt" for name in names if name not in moved}
    assert {path.name for path in folder.glob("superseded_2/*")} == {f"net_b_{name}.ckpt" for name in moved}
    assert (folder / "superseded_1" / "net_b_epoch10_rank0.ckpt").read_text() == "of an earlier run"
    lines = [line for line in log().splitlines() if "superseded" in line]
    assert len(lines) == len(moved) and all(f"net_b_{name}.ckpt;" in "".join(lines) for name in moved)


def test_with_more_images_per_step_the_new_checkpoint_is_the_latest(tmp_path):
    """The first checkpoint, step 7 of 20, stays until the resumed run has saved one: step 2 of 5."""
    path = save(tmp_path, SmallStep(0), TrainState(9, 67))
    with run_folder(tmp_path, keep_checkpoint_max=1, resume_ckpt="auto") as run:
        saver = saver_of(run, SmallStep(0), TrainState(9), 5, batch_size=8)
        saver.begin(read_checkpoint(path))
        assert saver.schedule.position(saver.state.global_step) == (3, 1) and run.checkpoints() == [path]
        saver.state.advance(True)
        saver.save()
        assert run.checkpoints() == [run.checkpoint(3, 2)]
    assert [name for name in os.listdir(run.checkpoint_folder) if name.startswith("superseded")] == ["superseded_1"]


def test_a_checkpoint_that_cannot_be_moved_away_does_not_fail_the_save(tmp_path, log):
    """Another program has removed it."""
    path = save(tmp_path, SmallStep(0), TrainState(9, 67))
    with run_folder(tmp_path) as run:
        saver = saver_of(run, SmallStep(0), TrainState(9, 20))
        saver.begin(None)
        os.remove(path)
        saver.save()
        assert saver.failure is None and saver.later == [] and run.checkpoints() == [run.checkpoint(1)]
    assert log().count(f"training began before {path}, but it cannot be moved away (No such file or directory)") == 1


def test_a_failed_save_is_an_error_until_a_checkpoint_is_written(tmp_path):
    """A folder has the checkpoint's name. A signal ends the run after another save."""
    with run_folder(tmp_path) as run:
        saver = saver_of(run, SmallStep(0), TrainState(9, 20))
        os.mkdir(run.checkpoint(1))
        saver.save()
        assert saver.failure == f"{run.checkpoint(1)} could not be written (Is a directory)" and saver.saved_step is None
        assert saver.write(run.best_checkpoint) and saver.failure
        os.rmdir(run.checkpoint(1))
        with pytest.raises(Stopped):
            stop_if_asked(SimpleNamespace(status=143), saver, StepReader(None, None))
        assert run.checkpoints() == [run.checkpoint(1)] and saver.failure is None
        # A removed folder is created again. A best checkpoint that could not be written is also a failure.
        shutil.rmtree(run.checkpoint_folder)
        saver.save()
        assert run.checkpoints() == [run.checkpoint(1)] and saver.failure is None
        os.mkdir(run.best_checkpoint)
        assert not saver.write(run.best_checkpoint) and run.best_checkpoint in saver.failure


def test_folders_and_links_with_the_names_of_checkpoints(tmp_path, log):
    """A folder and a dangling link are ignored. A folder is not removed, and neither is a file of another user."""
    path = save(tmp_path, SmallStep(0), TrainState(9, 20))
    run = run_folder(tmp_path, keep_checkpoint_max=1)
    os.symlink(tmp_path / "gone", run.checkpoint(2))
    os.mkdir(run.checkpoint(3))
    os.mkdir(os.path.join(run.checkpoint_folder, ".partial_folder"))
    assert resume(path, SmallStep(1), resume_ckpt="auto", save_dir=str(tmp_path)).global_step == 20
    assert all(f"passed over: there is no checkpoint '{run.checkpoint(epoch)}'" in log() for epoch in (2, 3))
    with run:
        os.mkdir(run.checkpoint(0))
        run.remove_old_checkpoints()
    assert run.checkpoints() == [run.checkpoint(3), run.checkpoint(0)] and not os.path.exists(path)
    assert f"{run.checkpoint(0)} is beyond keep_checkpoint_max, but cannot be removed (Is a directory)" in log()


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644)])
def test_the_umask_decides_who_reads_a_checkpoint(path, umask, mode):
    before = os.umask(umask)
    try:
        SmallStep(0).write(path, at_epoch(1))
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert os.stat(path).st_mode & 0o777 == mode


def test_a_file_system_without_modes_and_without_fsync_of_folders(path, monkeypatch):
    """System calls that the file system does not support are not errors."""
    def chmod(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "chmod", chmod)
    monkeypatch.setattr(os, "fsync", fsync)
    write_checkpoint(path, {"fc.weight": Tensor([1.0, 2.0])})
    assert read_checkpoint(path).weights["fc.weight"].tolist() == [1, 2]
