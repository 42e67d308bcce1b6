"""src/train/metrics.py: the JSON lines and the log."""
import json
import logging

import numpy as np
import pytest

from src.train.metrics import Metrics
from src.train.saver import TrainState
from tests.helpers.runs import run_folder, schedule, settings

KEYS = {"epoch", "step", "global_step", "loss", "rpn_cls_loss", "rpn_box_loss", "roi_cls_loss", "roi_box_loss", "lr",
        "loss_scale", "skipped_steps", "images_per_second", "data_wait", "eta_seconds"}


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set: clock.now, in seconds."""
    class Clock:
        now = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: Clock.now)
    return Clock


def losses(step):
    return np.float32([10, 1, 2, 3, 4]) * (step + 1)


def start(folder, start_step=0, log_interval=3, epochs=3):
    """Return metrics with 5 steps per epoch and 4 images per step, and their state."""
    state = TrainState(0, global_step=start_step)
    plan = schedule(5, epochs=epochs, batch_size=4)
    return Metrics(settings(folder, log_interval=log_interval), run_folder(folder), plan, state), state


def add(metrics, state, losses, seconds, rate=0.1, applied=True):
    state.advance(applied)
    metrics.add(losses, rate, 256.0, seconds)


def read(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def train(folder, steps, clock, start_step=0):
    """Log every 3 steps; 2 s per step, of which 0.5 s wait for data; steps 4, 8, ... (counted from 1) are skipped."""
    metrics, state = start(folder, start_step)
    with metrics:
        for step in steps:
            clock.now += 2
            add(metrics, state, losses(step), {"data_wait": 0.5}, 0.01 * (step + 1), applied=(step + 1) % 4 > 0)
    return read(folder)


def test_lines_end_intervals_and_epochs(tmp_path, clock):
    lines = train(tmp_path, range(11), clock)
    assert all(set(line) == KEYS for line in lines)
    assert [(line["epoch"], line["step"], line["global_step"]) for line in lines] == [
        (1, 3, 3), (1, 5, 5), (2, 1, 6), (2, 4, 9), (2, 5, 10)]
    # Steps 1 to 3, 4 and 5, 6, 7 to 9, 10 (counted from 1); the loss of step n is 10 n.
    assert [line["loss"] for line in lines] == [20, 45, 60, 80, 100]
    assert [lines[1][name] for name in ("rpn_cls_loss", "rpn_box_loss", "roi_cls_loss", "roi_box_loss")] == [
        4.5, 9, 13.5, 18]
    assert [line["lr"] for line in lines] == pytest.approx([0.03, 0.05, 0.06, 0.09, 0.1])
    assert [line["skipped_steps"] for line in lines] == [0, 1, 1, 2, 2]
    assert {line["loss_scale"] for line in lines} == {256}


def test_speed_waiting_and_time_left(tmp_path, clock):
    first, second, *_ = train(tmp_path, range(5), clock)
    assert first["images_per_second"] == second["images_per_second"] == pytest.approx(4 / 2)
    assert first["data_wait"] == second["data_wait"] == pytest.approx(0.5 / 2)
    assert (first["eta_seconds"], second["eta_seconds"]) == pytest.approx((12 * 2, 10 * 2))


def test_pauses_do_not_count(tmp_path, clock):
    metrics, state = start(tmp_path, log_interval=1)
    with metrics:
        with metrics.pause():
            clock.now += 58
        clock.now += 2
        add(metrics, state, losses(0), {"data_wait": 0.0})
    assert read(tmp_path)[0]["images_per_second"] == pytest.approx(2)


def test_resuming_continues_the_file_and_a_new_run_starts_anew(tmp_path, clock):
    path = tmp_path / "metrics.jsonl"
    # Interrupted in the second epoch, in the middle of a line.
    assert len(train(tmp_path, range(9), clock)) == 4
    path.write_text(path.read_text()[:-20])
    assert [line["global_step"] for line in train(tmp_path, range(5, 10), clock, start_step=5)] == [3, 5, 6, 9, 10]
    assert [line["global_step"] for line in train(tmp_path, range(5), clock)] == [3, 5]


def test_the_first_line_after_a_resume_has_the_mean_of_the_steps_since(tmp_path, clock):
    """The interval of steps 7 to 9 is resumed after step 7: the losses of steps 8 and 9 are 80 and 90."""
    lines = train(tmp_path, range(7, 10), clock, start_step=7)
    assert [(line["global_step"], line["loss"]) for line in lines] == [(9, 85), (10, 100)]


def test_a_loss_that_is_no_number_is_null(tmp_path, clock):
    metrics, state = start(tmp_path, log_interval=1)
    with metrics:
        clock.now += 2
        add(metrics, state, np.float32([np.nan, np.inf, 2, 3, 4]), {"data_wait": 0.5}, applied=False)
    text = (tmp_path / "metrics.jsonl").read_text()
    line = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert (line["loss"], line["rpn_cls_loss"], line["rpn_box_loss"]) == (None, None, 2)


def test_log_line(tmp_path, clock, caplog):
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    train(tmp_path, range(3), clock)
    (record,) = caplog.records
    for part in ("epoch 1/3", "step 3/5", "loss 20.0000", "rpn_cls 2.0000", "rpn_box 4.0000", "roi_cls 6.0000",
                 "roi_box 8.0000", "lr 0.03", "scale 256", "skipped 0", "2.00 images/s", "25%", "left 0:00:24"):
        assert part in record.getMessage()


def test_shares_of_several_processes(tmp_path, clock, caplog):
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    metrics, state = start(tmp_path, log_interval=2)
    with metrics:
        for step in range(2):
            clock.now += 2
            add(metrics, state, losses(step), {"data_wait": 0.2, "rank_wait": 0.3, "all_reduce": 0.1 + 0.2 * step})
    (line,) = read(tmp_path)
    assert (line["data_wait"], line["rank_wait"], line["all_reduce"]) == pytest.approx((0.1, 0.15, 0.1))
    assert "waiting for data 10%  waiting for other ranks 15%  all-reduce 10%" in caplog.text
