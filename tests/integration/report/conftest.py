"""The page of an evaluation in a browser, loaded once for all tests of this folder."""
import json
from types import SimpleNamespace

import pytest

from src.config import Config
from src.evaluation.evaluate import write_results
from src.report.error_analysis import write_analysis
from src.report.evaluation import match_boxes, write_evaluation_report
from tests.helpers.report_page import IMAGES
from tests.helpers.reports import drawn_dataset, evaluated


@pytest.fixture(scope="session")
def case(tmp_path_factory):
    """The evaluation, its folder and metrics.json, and its boxes in the order of images."""
    folder = tmp_path_factory.mktemp("report")
    dataset = drawn_dataset(folder, IMAGES)
    evaluation = evaluated(dataset)
    matched = match_boxes(evaluation)
    evaluation.metrics["errors"] = write_analysis(str(folder), evaluation, matched[0])
    write_results(str(folder), evaluation.metrics, evaluation.results)
    write_evaluation_report(str(folder), evaluation, matched, dataset, Config(data={"target_size": [192, 192]}), "some.ckpt")
    truth, found, *_ = matched[0]
    return SimpleNamespace(folder=folder, dataset=dataset, truth=truth, found=found, names=evaluation.class_names,
                           metrics=json.loads((folder / "metrics.json").read_text()),
                           ids=sorted(record.image_id for record in dataset.records))


@pytest.fixture(scope="session")
def loaded(browser, case):
    """The page, loaded once."""
    from tests.helpers.browser import Page
    return Page(browser, case.folder / "report.html")


@pytest.fixture
def page(loaded):
    """The loaded page. After each test, it must not have used the network, and no script may have failed."""
    if loaded("document.getElementById('enlarged').open"):
        loaded.click("#close")
    loaded("gallery.choose({category: -1, kind: '', cell: null})")
    loaded.choose("#iou", 0.5)
    for selector in ("#annotations", "#detections-0"):
        if not loaded.find(selector).is_selected():
            loaded.click(selector)
    loaded.click("#best")
    loaded("scrollTo(0, 0)")
    yield loaded
    asked, console = loaded.logs()
    assert asked == console == []
