"""src/train/metrics.py and event_file.py: evaluations, curves and TensorBoard files after interruptions and on full disks."""
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
from src.train.event_file import EventFile, open_event_file
from src.train.metrics import Metrics
from src.train.saver import TrainState
from tests.helpers.runs import run_folder, schedule, settings


@pytest.fixture(autouse=True)
def _log_is_captured(monkeypatch):
    monkeypatch.setattr(logging.getLogger("faster_rcnn"), "propagate", True)


def start(folder, global_step=0, evaluated=0, rank=0, tensorboard=False, epochs=5):
    """Return metrics with 10 steps per epoch, and their state."""
    state = TrainState(0, global_step=global_step, evaluated=evaluated)
    run = run_folder(folder, SimpleNamespace(rank=rank, size=2))
    return Metrics(settings(folder, tensorboard=tensorboard), run, schedule(10, epochs=epochs), state), state


def scores(ap):
    return {**{key: ap + place / 100 for place, key in enumerate(KEYS)}, "images": 5, "per_class": {"cat": 0.5}}


def evaluate(started, *epochs):
    metrics, state = started
    with metrics:
        for epoch in epochs:
            state.global_step = 10 * epoch
            metrics.add_evaluation(scores(epoch / 10))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_an_evaluation(tmp_path):
    evaluate(start(tmp_path), 1, 2)
    first, second = lines(tmp_path / "evaluations.jsonl")
    assert first == {"epoch": 1, "global_step": 10, **{key: 0.1 + place / 100 for place, key in enumerate(KEYS)}}
    assert (second["epoch"], second["global_step"], second["AP"]) == (2, 20, 0.2)


def test_resuming_drops_later_and_damaged_lines(tmp_path, caplog):
    path = tmp_path / "evaluations.jsonl"
    evaluate(start(tmp_path), 1, 2, 3)
    path.write_text(path.read_text()[:-30])
    # A checkpoint written before the evaluation of epoch 2.
    evaluate(start(tmp_path, global_step=20, evaluated=1), 2, 4)
    assert [line["epoch"] for line in lines(path)] == [1, 2, 4]
    assert "evaluations.jsonl: 1 lines that cannot be read are left out" in caplog.text
    evaluate(start(tmp_path), 1)
    assert [line["epoch"] for line in lines(path)] == [1]


def test_only_rank_0_writes(tmp_path):
    metrics, _ = start(tmp_path, rank=1, tensorboard=True)
    with metrics:
        metrics.draw_curves()
    assert list(tmp_path.iterdir()) == []


def test_curves_that_cannot_be_written_are_a_line_of_the_log(tmp_path, caplog):
    (tmp_path / "curves.png").mkdir()
    metrics, _ = start(tmp_path)
    with metrics:
        metrics.draw_curves()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "curves.png could not be drawn" in caplog.text and "training goes on" in caplog.text
    (tmp_path / "curves.png").rmdir()
    metrics.draw_curves()
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_a_folder_that_cannot_be_written_to(tmp_path):
    with pytest.raises(UserError, match="cannot write .*evaluations.jsonl .*choose another --save_dir"):
        start(tmp_path / "gone")


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


def test_event_files_of_a_run_and_its_continuation(tmp_path, monkeypatch):
    seconds = iter(range(10 ** 9, 2 * 10 ** 9))
    monkeypatch.setattr("time.time", lambda: next(seconds))  # file names contain the second
    for first_step, last in ((0, 4), (2, 3)):
        metrics, state = start(tmp_path, global_step=first_step, tensorboard=True)
        with metrics:
            for step in range(first_step, last):
                state.advance(True)
                metrics.add(np.float32([5 * step, 1, 2, 3, 4]), 0.01, 256.0, {"data_wait": 0.0})
            metrics.add_evaluation({**scores(0.25), "APs": -1.0})
    first, second = events(tmp_path / "tensorboard")
    assert first[0] == (1, "start", None) and second[0] == (3, "start", None)
    assert [row for row in first if row[1] == "loss/total"] == [(step + 1, "loss/total", 5.0 * step) for step in range(4)]
    assert [row[1:] for row in second if row[0] == 3 and row[1] != "training/images_per_second"][1:] == [
        ("loss/rpn_cls_loss", 1), ("loss/rpn_box_loss", 2), ("loss/roi_cls_loss", 3), ("loss/roi_box_loss", 4),
        ("loss/total", 10), ("training/learning_rate", 0.01), ("training/loss_scale", 256),
        *((f"evaluation/{key}", 0.25 + place / 100) for place, key in enumerate(KEYS) if key != "APs")]


def test_event_files_on_a_full_disk(tmp_path, monkeypatch, caplog):
    """A limit on file sizes simulates the full disk."""
    seconds = iter(range(10 ** 9, 2 * 10 ** 9))
    monkeypatch.setattr("time.time", lambda: next(seconds))
    writer = EventFile(str(tmp_path), 0)
    writer.add(1, {"a": 1.0})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        for step in (2, 3):
            writer.add(step, {f"b{number}": 0.0 for number in range(9)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    writer.add(4, {"a": 4.0})
    assert caplog.text.count("could not be written (File too large); training goes on") == 2
    sizes = sorted(path.name for path in tmp_path.iterdir())
    for path in tmp_path.iterdir():
        if path.name != sizes[-1]:
            path.unlink()
    # Scalars before the failure stay valid.
    assert events(tmp_path) == [[(2, "start", None), (4, "a", 4.0)]]


def test_tensorboard_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert open_event_file(SimpleNamespace(tensorboard=False), 0, 0) is None
    with pytest.raises(UserError, match="needs tensorboardX, .*run `pip install tensorboardX`"):
        start(tmp_path, tensorboard=True)
