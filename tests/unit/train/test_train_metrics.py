"""src/train/metrics.py: JSON lines, log, curves and TensorBoard files, also after interruptions and on full disks."""
import json
import logging
import resource
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from src.errors import UserError
from src.evaluation.coco import KEYS
from src.report.tensorboard import EventFile
from src.train.metrics import Metrics
from src.train.state import TrainState
from tests.helpers.runs import run_folder, schedule, settings

LINE_KEYS = {"epoch", "step", "global_step", "loss", "rpn_cls_loss", "rpn_box_loss", "roi_cls_loss", "roi_box_loss", "lr",
             "loss_scale", "skipped_steps", "images_per_second", "data_wait", "eta_seconds"}


@pytest.fixture(autouse=True)
def log(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("faster_rcnn"), "propagate", True)
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    return caplog


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set: clock.now, in seconds."""
    class Clock:
        now = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: Clock.now)
    return Clock


def start(folder, start_step=0, evaluated=0, rank=0, **changes):
    """Return metrics with 5 steps per epoch and 4 images per step, and their state."""
    state = TrainState(0, global_step=start_step, evaluated=evaluated)
    run = run_folder(folder, SimpleNamespace(rank=rank, size=2))
    return Metrics(settings(folder, **changes), run, schedule(5, batch_size=4), state), state


def add(metrics, state, losses, seconds, rate=0.1, applied=True):
    state.advance(applied)
    metrics.add(np.float32(losses), rate, 256.0, seconds)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def train(folder, steps, clock, start_step=0):
    """Log every 3 steps; 2 s per step, of which 0.5 s wait for data; steps 4, 8, ... (counted from 1) are skipped."""
    metrics, state = start(folder, start_step, log_interval=3)
    with metrics:
        for step in steps:
            clock.now += 2
            losses = np.array([10, 1, 2, 3, 4]) * (step + 1)
            add(metrics, state, losses, {"data_wait": 0.5}, 0.01 * (step + 1), applied=(step + 1) % 4 > 0)
    return read(folder / "metrics.jsonl")


def test_lines_end_intervals_and_epochs(tmp_path, clock, log):
    lines = train(tmp_path, range(11), clock)
    assert all(set(line) == LINE_KEYS for line in lines)
    assert [(line["epoch"], line["step"], line["global_step"]) for line in lines] == [
        (1, 3, 3), (1, 5, 5), (2, 1, 6), (2, 4, 9), (2, 5, 10)]
    # Steps 1 to 3, 4 and 5, 6, 7 to 9, 10 (counted from 1); the loss of step n is 10 n.
    assert [line["loss"] for line in lines] == [20, 45, 60, 80, 100]
    assert [lines[1][name] for name in ("rpn_cls_loss", "rpn_box_loss", "roi_cls_loss", "roi_box_loss")] == [
        4.5, 9, 13.5, 18]
    assert [line["lr"] for line in lines] == pytest.approx([0.03, 0.05, 0.06, 0.09, 0.1])
    assert [line["skipped_steps"] for line in lines] == [0, 1, 1, 2, 2]
    assert {line["loss_scale"] for line in lines} == {256}
    assert {line["images_per_second"] for line in lines} == {4 / 2} and {line["data_wait"] for line in lines} == {0.5 / 2}
    assert [line["eta_seconds"] for line in lines[:2]] == pytest.approx([12 * 2, 10 * 2])
    assert log.messages[0] == (
        "epoch 1/3 step 3/5  loss 20.0000 (rpn_cls 2.0000 rpn_box 4.0000 roi_cls 6.0000 roi_box 8.0000)  lr 0.03  scale 256  "
        "skipped 0  2.00 images/s  waiting for data 25%  left 0:00:24")


def test_pauses_shares_of_several_processes_and_losses_that_are_no_numbers(tmp_path, clock, log):
    metrics, state = start(tmp_path, log_interval=2)
    with metrics:
        losses = [np.nan, np.inf, 2, 3, 4]
        for step in range(2):
            with metrics.pause():
                clock.now += 58
            clock.now += 2
            add(metrics, state, losses, {"data_wait": 0.2, "rank_wait": 0.3, "all_reduce": 0.1 + 0.2 * step}, applied=False)
    text = (tmp_path / "metrics.jsonl").read_text()
    line = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert (line["loss"], line["rpn_cls_loss"], line["rpn_box_loss"]) == (None, None, 2)
    assert (line["data_wait"], line["rank_wait"], line["all_reduce"]) == pytest.approx((0.1, 0.15, 0.1))
    assert "2.00 images/s  waiting for data 10%  waiting for other ranks 15%  all-reduce 10%" in log.text


def test_a_resumed_run_continues_the_file_and_a_new_run_replaces_it(tmp_path, clock):
    path = tmp_path / "metrics.jsonl"
    # Interrupted in the second epoch, in the middle of a line.
    assert len(train(tmp_path, range(9), clock)) == 4
    path.write_text(path.read_text()[:-20])
    # The interval of steps 7 to 9 is resumed after step 7: the losses of steps 8 and 9 are 80 and 90.
    lines = train(tmp_path, range(7, 10), clock, start_step=7)
    assert [(line["global_step"], line["loss"]) for line in lines] == [(3, 20), (5, 45), (6, 60), (9, 85), (10, 100)]
    assert [line["global_step"] for line in train(tmp_path, range(5), clock)] == [3, 5]


def scores(ap):
    return {**{key: ap + place / 100 for place, key in enumerate(KEYS)}, "images": 5, "per_class": {"cat": 0.5}}


def evaluate(started, *epochs):
    metrics, state = started
    with metrics:
        for epoch in epochs:
            state.global_step = 5 * epoch
            metrics.add_evaluation(scores(epoch / 10))


def test_evaluations_have_one_line_each_and_a_resumed_run_drops_later_and_damaged_lines(tmp_path, log):
    path = tmp_path / "evaluations.jsonl"
    evaluate(start(tmp_path), 1, 2, 3)
    first, second, _ = read(path)
    assert first == {"epoch": 1, "global_step": 5, **{key: 0.1 + place / 100 for place, key in enumerate(KEYS)}}
    assert (second["epoch"], second["global_step"], second["AP"]) == (2, 10, 0.2)
    path.write_text(path.read_text()[:-30])
    # A checkpoint written before the evaluation of epoch 2.
    evaluate(start(tmp_path, 10, evaluated=1), 2, 4)
    assert [line["epoch"] for line in read(path)] == [1, 2, 4]
    assert "evaluations.jsonl: 1 lines that cannot be read are left out" in log.text
    evaluate(start(tmp_path), 1)
    assert [line["epoch"] for line in read(path)] == [1]


def test_only_rank_0_writes_and_curves_that_cannot_be_written_are_logged(tmp_path, log):
    metrics, _ = start(tmp_path, rank=1, tensorboard=True)
    with metrics:
        metrics.draw_curves()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "curves.png").mkdir()
    metrics, _ = start(tmp_path)
    with metrics:
        metrics.draw_curves()
    assert [record.levelname for record in log.records] == ["ERROR"]
    assert "curves.png could not be drawn" in log.text and "training goes on" in log.text
    (tmp_path / "curves.png").rmdir()
    metrics.draw_curves()
    assert (tmp_path / "curves.png").stat().st_size > 10_000


@pytest.fixture
def seconds(monkeypatch):
    """A time that differs in each call, because names of event files contain the second."""
    numbers = iter(range(10 ** 9, 2 * 10 ** 9))
    monkeypatch.setattr("time.time", lambda: next(numbers))


def events(folder):
    """Return, per file in order of writing, (step, tag, value), and (step, "start", None) where earlier files become invalid."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    files = []
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data, found = path.read_bytes(), []
        while data:  # record: length, its checksum, content, its checksum
            (length,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12:12 + length]), data[16 + length:]
            if event.session_log.status == SessionLog.START:
                found.append((event.step, "start", None))
            found += [(event.step, value.tag, pytest.approx(value.simple_value)) for value in event.summary.value]
        files.append(found)
    return files


def test_event_files_of_a_run_and_its_continuation(tmp_path, seconds):
    for first_step, last in ((0, 4), (2, 3)):
        metrics, state = start(tmp_path, first_step, tensorboard=True)
        with metrics:
            for step in range(first_step, last):
                add(metrics, state, [5 * step, 1, 2, 3, 4], {"data_wait": 0.0}, 0.01)
            metrics.add_evaluation({**scores(0.25), "APs": -1.0})
    first, second = events(tmp_path / "tensorboard")
    assert first[0] == (1, "start", None) and second[0] == (3, "start", None)
    assert [row for row in first if row[1] == "loss/total"] == [(step + 1, "loss/total", 5.0 * step) for step in range(4)]
    assert [row[1:] for row in second if row[0] == 3 and row[1] != "training/images_per_second"][1:] == [
        ("loss/rpn_cls_loss", 1), ("loss/rpn_box_loss", 2), ("loss/roi_cls_loss", 3), ("loss/roi_box_loss", 4),
        ("loss/total", 10), ("training/learning_rate", 0.01), ("training/loss_scale", 256),
        *((f"evaluation/{key}", 0.25 + place / 100) for place, key in enumerate(KEYS) if key != "APs")]


def test_event_files_on_a_full_disk(tmp_path, seconds, log):
    """A limit on file sizes simulates the full disk."""
    writer = EventFile(str(tmp_path), 0)
    writer.add(1, {"loss": 1.0})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        for step in (2, 3):
            writer.add(step, dict.fromkeys(KEYS, 0.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    writer.add(4, {"loss": 4.0})
    assert log.text.count("could not be written (File too large); training goes on") == 2
    # Scalars before the failure stay valid; the last file is complete.
    last = max(tmp_path.iterdir())
    assert [path.unlink() for path in tmp_path.iterdir() if path != last]
    assert events(tmp_path) == [[(2, "start", None), (4, "loss/total", 4.0)]]


def test_a_folder_that_cannot_be_written_to_and_tensorboard_without_its_library(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="cannot write .*evaluations.jsonl .*choose another --save_dir"):
        start(tmp_path / "gone")
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match="needs tensorboardX, .*run `pip install tensorboardX`"):
        start(tmp_path, tensorboard=True)
