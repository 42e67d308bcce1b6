"""src/report/training.py, used by src/train/metrics.py: the page of a run during the run, at its end and resumed."""
import logging
from types import SimpleNamespace

import numpy as np
import pytest

from src.errors import UserError
from src.evaluation.coco import KEYS
from src.report import training
from src.report.training import MIN_SECONDS
from src.run.launch import Stopped
from src.train.metrics import Metrics
from src.train.state import TrainState
from tests.helpers.reports import contents_of
from tests.helpers.runs import run_folder, schedule, settings

STEPS = 10  # steps per epoch


@pytest.fixture
def clock(monkeypatch):
    """The clock of the report in seconds, which tests set."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: clock.now, time=lambda: 5e8 + clock.now))
    return clock


def start(folder, global_step=0, rank=0, epochs=5):
    state = TrainState(0, global_step=global_step, evaluated=global_step // STEPS)
    run = run_folder(folder, SimpleNamespace(rank=rank, size=2))
    return Metrics(settings(folder), run, schedule(STEPS, epochs=epochs), state), state


def add(metrics, state, loss):
    state.advance(True)
    metrics.add(np.float32([loss, 1, 2, 3, 4]), 0.01, 256.0, {"data_wait": 0.0})


def page(folder):
    """Return the page's data, after a check that browsers reload the page of a running training and no other."""
    contents = contents_of(folder / "report.html")
    refreshes = 'http-equiv="refresh" content="15"' in (folder / "report.html").read_text()
    assert refreshes == (contents["state"] == "running")
    return contents


def test_complete_run(tmp_path, clock):
    metrics, state = start(tmp_path, epochs=1)
    with metrics:
        first = page(tmp_path)
        assert (first["state"], first["step"], first["total"], first["curves"]) == ("running", 0, STEPS, {})
        assert first["settings"]["device_target"] == "CPU" and first["settings"]["processes"] == "2"
        for step in range(STEPS):
            clock.now += MIN_SECONDS + 1
            add(metrics, state, step)
            assert page(tmp_path)["step"] == step + 1 and page(tmp_path)["written"] == 5e8 + clock.now
        metrics.add_evaluation({**dict.fromkeys(KEYS, 0.25), "AP75": -1.0})
    last = page(tmp_path)
    assert (last["state"], last["reason"], last["step"]) == ("finished", "", STEPS)
    np.testing.assert_allclose(last["curves"]["x"], np.arange(1, 11) / 10)
    assert last["curves"]["loss"] == list(range(10)) and last["curves"]["roi_box_loss"] == [4] * 10
    assert "all_reduce" not in last["curves"]
    assert last["evaluations"] == {"epoch": [1], "AP": [0.25], "AP50": [0.25], "AP75": [None]}


@pytest.mark.parametrize(("seconds", "intervals", "steps"), [
    (0, [1.25] * 5, [0, 0, 0, 4, 4]),        # at most every MIN_SECONDS
    (3, [290, 11, 290], [0, 2, 2])])         # a page that takes 3 s is written every 300 s
def test_writing_takes_a_hundredth_of_the_time(tmp_path, clock, monkeypatch, seconds, intervals, steps):
    def slow(*arguments, write=training.write_page):
        clock.now += seconds
        write(*arguments)
    monkeypatch.setattr(training, "write_page", slow)
    metrics, state = start(tmp_path)
    with metrics:
        for interval, step in zip(intervals, steps):
            clock.now += interval
            add(metrics, state, 1.0)
            assert page(tmp_path)["step"] == step


@pytest.mark.parametrize(("error", "state", "reason"), [
    (None, "finished", "early, as the last evaluations had no better AP"),
    (Stopped(143), "stopped", "by a signal; --resume_ckpt auto goes on from the last checkpoint"),
    (UserError("the loss is nan at step 2"), "stopped", "the loss is nan at step 2"),
    (MemoryError("no room"), "stopped", "MemoryError: no room")])
def test_reason_of_the_end(tmp_path, error, state, reason):
    metrics, train_state = start(tmp_path)
    try:
        with metrics:
            add(metrics, train_state, 1.0)
            if error:
                raise error
    except (Stopped, UserError, MemoryError) as raised:
        assert raised is error
    assert [page(tmp_path)[key] for key in ("state", "reason", "step")] == [state, reason, 1]


def test_resumed_run_shows_earlier_steps(tmp_path):
    for first, last in ((0, 15), (10, 13)):
        metrics, state = start(tmp_path, global_step=first)
        with metrics:
            for step in range(first, last):
                add(metrics, state, step)
                if (step + 1) % STEPS == 0:
                    metrics.add_evaluation(dict.fromkeys(KEYS, 0.5))
    curves = page(tmp_path)["curves"]
    assert curves["loss"] == list(range(13)) and page(tmp_path)["evaluations"]["epoch"] == [1]
    np.testing.assert_allclose(curves["x"], np.arange(1, 14) / 10)


def test_other_ranks_write_nothing(tmp_path):
    metrics, state = start(tmp_path, rank=1)
    with metrics:
        add(metrics, state, 1.0)
        metrics.add_evaluation(dict.fromkeys(KEYS, 0.5))
    assert list(tmp_path.iterdir()) == []


def test_unwritable_page_is_logged(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("faster_rcnn"), "propagate", True)
    (tmp_path / "report.html").mkdir()
    metrics, state = start(tmp_path)
    with metrics:
        add(metrics, state, 1.0)
    assert {record.levelname for record in caplog.records} <= {"INFO", "ERROR"}
    assert "report.html could not be written (Is a directory); training goes on" in caplog.text
