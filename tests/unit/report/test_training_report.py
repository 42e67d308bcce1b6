"""src/report/training_report.py, used by src/train/metrics.py: the page of a run during the run, at its end and resumed."""
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest

from src.errors import UserError
from src.evaluation.coco import KEYS
from src.report import training_report
from src.report.training_report import MIN_SECONDS
from src.run.signals import Stopped
from src.train.metrics import Metrics
from src.train.state import TrainState
from src.visualization.curves import MAX_POINTS
from tests.helpers.reports import contents_of
from tests.helpers.runs import run_folder, schedule, settings

STEPS = 10  # steps per epoch


@pytest.fixture(autouse=True)
def _log_is_captured(monkeypatch):
    monkeypatch.setattr(logging.getLogger("faster_rcnn"), "propagate", True)


@pytest.fixture
def clock(monkeypatch):
    """The clock of the report in seconds, which tests set."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(training_report, "time", SimpleNamespace(monotonic=lambda: clock.now, time=lambda: 5e8 + clock.now))
    return clock


def start(folder, global_step=0, rank=0, epochs=5):
    state = TrainState(0, global_step=global_step, evaluated=global_step // STEPS)
    run = run_folder(folder, SimpleNamespace(rank=rank, size=2))
    return Metrics(settings(folder), run, schedule(STEPS, epochs=epochs), state), state


def add(metrics, state, loss):
    state.advance(True)
    metrics.add(np.float32([loss, 1, 2, 3, 4]), 0.01, 256.0, {"data_wait": 0.0})


def page(folder):
    return contents_of(folder / "report.html")


def refreshes(folder):
    return 'http-equiv="refresh" content="15"' in (folder / "report.html").read_text()


def test_a_run_from_start_to_end(tmp_path, clock):
    metrics, state = start(tmp_path, epochs=1)
    with metrics:
        first = page(tmp_path)
        assert (first["state"], first["step"], first["total"], first["curves"]) == ("running", 0, STEPS, {})
        assert refreshes(tmp_path)
        assert first["settings"]["device_target"] == "CPU" and first["settings"]["processes"] == "2"
        for step in range(STEPS):
            clock.now += MIN_SECONDS + 1
            add(metrics, state, step)
            assert page(tmp_path)["step"] == step + 1 and page(tmp_path)["written"] == 5e8 + clock.now
        metrics.add_evaluation({**dict.fromkeys(KEYS, 0.25), "AP75": -1.0})
    last = page(tmp_path)
    assert (last["state"], last["reason"], last["step"]) == ("finished", "", STEPS) and not refreshes(tmp_path)
    np.testing.assert_allclose(last["curves"]["x"], np.arange(1, 11) / 10)
    assert last["curves"]["loss"] == list(range(10)) and last["curves"]["roi_box_loss"] == [4] * 10
    assert "all_reduce" not in last["curves"]
    assert last["evaluations"] == {"epoch": [1], "AP": [0.25], "AP50": [0.25], "AP75": [None]}


def test_it_is_not_written_more_often_than_every_few_seconds(tmp_path, clock):
    metrics, state = start(tmp_path)
    with metrics:
        for _ in range(5):
            clock.now += MIN_SECONDS / 4
            add(metrics, state, 1.0)
        assert page(tmp_path)["step"] == 4


def test_writing_takes_a_hundredth_of_the_time_at_most(tmp_path, clock, monkeypatch):
    def slow(*arguments, write=training_report.write_page):
        clock.now += 3
        write(*arguments)
    monkeypatch.setattr(training_report, "write_page", slow)
    metrics, state = start(tmp_path)
    with metrics:
        for seconds, step in ((290, 0), (11, 2), (290, 2)):
            clock.now += seconds
            add(metrics, state, 1.0)
            assert page(tmp_path)["step"] == step


@pytest.mark.parametrize(("error", "reason"), [
    (Stopped(143), "by a signal; --resume_ckpt auto goes on from the last checkpoint"),
    (UserError("the loss is nan at step 2"), "the loss is nan at step 2"),
    (MemoryError("no room"), "MemoryError: no room"),
])
def test_how_a_run_was_stopped(tmp_path, error, reason):
    metrics, state = start(tmp_path)
    with pytest.raises(type(error)), metrics:
        add(metrics, state, 1.0)
        raise error
    assert (page(tmp_path)["state"], page(tmp_path)["reason"]) == ("stopped", reason) and not refreshes(tmp_path)
    assert page(tmp_path)["step"] == 1


def test_a_run_that_ends_early(tmp_path):
    metrics, state = start(tmp_path)
    with metrics:
        add(metrics, state, 1.0)
    assert (page(tmp_path)["state"], page(tmp_path)["reason"]) == ("finished", "early, as the last evaluations had no better AP")


def test_a_resumed_run_shows_what_was_before(tmp_path):
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


def test_long_runs_have_means(tmp_path):
    lines = [{"epoch": 1 + step // 1000, "step": 1 + step % 1000, "global_step": step + 1, "loss": step, "lr": None}
             for step in range(2500)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics, _ = start(tmp_path, global_step=2500, epochs=300)
    with metrics:
        curves = page(tmp_path)["curves"]
    assert len(curves["x"]) == 834 <= MAX_POINTS and curves["loss"][:2] == [1, 4] and "lr" not in curves


def test_other_ranks_write_nothing(tmp_path):
    metrics, state = start(tmp_path, rank=1)
    with metrics:
        add(metrics, state, 1.0)
        metrics.add_evaluation(dict.fromkeys(KEYS, 0.5))
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_is_a_line_of_the_log(tmp_path, caplog):
    (tmp_path / "report.html").mkdir()
    metrics, state = start(tmp_path)
    with metrics:
        add(metrics, state, 1.0)
    assert {record.levelname for record in caplog.records} <= {"INFO", "ERROR"}
    assert "report.html could not be written (Is a directory); training goes on" in caplog.text
