"""The page of a training run in a browser."""
import time

import pytest

from src.evaluation.coco import KEYS
from src.report.training import TrainingReport
from tests.helpers.runs import schedule, settings


def line(step):
    return {"epoch": (step - 1) // 10 + 1, "step": (step - 1) % 10 + 1, "global_step": step, "loss": 2 / step,
            "rpn_cls_loss": 0.5, "lr": 0.01, "images_per_second": 4.0 + step % 2, "data_wait": 0.125, "eta_seconds": 3661.5}


@pytest.fixture
def shown(browser, tmp_path):
    """A function that writes the report of a run with the given state after 20 of 50 steps, and loads its page."""
    from tests.helpers.browser import Page

    def write_and_load(*state):
        report = TrainingReport(settings(tmp_path), 1, schedule(10, epochs=5))
        report.begin(0)
        for step in range(1, 21):
            report.add(line(step))
        report.add_evaluation({"epoch": 2, "global_step": 20, **dict.fromkeys(KEYS, 0.3), "AP50": 0.625})
        report.write(*state)
        return Page(browser, tmp_path / "report.html")
    yield write_and_load
    browser.get("about:blank")  # because the page of a running training reloads


def test_a_run_that_runs(shown):
    page = shown("running")
    assert page.find("#state").text == "running" and page("[progress.value, progress.max]") == [20, 50]
    assert page.find("#position").text == "epoch 2.00 of 5, step 20 of 50, 1:01:01 left"
    legends = [text.split() for text in page.texts("#loss-chart .chart-legend span")]
    assert legends == [["total", "0.1"], ["RPN", "class", "0.5"]]
    assert page.texts("#score-chart .chart-legend span") == [
        "AP 0.3, best 0.300", "AP50 0.625, best 0.625", "AP75 0.3, best 0.300"]
    assert page.texts("#share-chart .chart-legend span") == ["waiting for data 13%"]
    # With a logarithmic scale, the curve of 2 / step falls from 2 to 0.1 over the whole height of 266 pixels.
    points = page("document.querySelector('#loss-chart path').getAttribute('d')").strip("M").split("L")
    heights = [float(point.split()[1]) for point in points]
    assert len(points) == 20 and heights[0] == pytest.approx(12, abs=0.1) and heights[-1] == pytest.approx(278, abs=0.1)
    assert heights[9] == pytest.approx(12 + 266 * 0.7686, abs=0.2)  # log(10) / log(20)
    assert page.texts("#setting-table tr:last-child td") == ["processes", "1"]
    assert "reloads every 15 seconds" in page.find("#about").text and "No update" not in page.find("#about").text
    assert page.logs()[1] == []


def test_a_run_that_has_ended_and_one_of_which_nothing_is_heard(shown, monkeypatch):
    page = shown("stopped", "the loss is <b>nan</b>")
    assert page.find("#state").text == "stopped" and page.find("#reason").text == "the loss is <b>nan</b>"
    assert "left" not in page.find("#position").text and "reloads" not in page.find("#about").text
    an_hour_ago = time.time() - 3600
    monkeypatch.setattr("src.report.training.time.time", lambda: an_hour_ago)
    page = shown("running")
    assert page.find("#about").text.startswith("No update for 1:00:0")
    assert page.logs()[1] == []
