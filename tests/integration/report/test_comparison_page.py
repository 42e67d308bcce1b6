"""The page of two evaluations in a browser, compared with numbers from the evaluations' Python code."""
import statistics

import numpy as np
import pytest

from src.evaluation.coco import score
from src.report.comparison import GROUPS, Stored, write_comparison
from src.report.evaluation import match_boxes
from tests.helpers.report_page import IMAGES, counts_of, first_panel, rows_of, score_by_keys, shown_ids
from tests.helpers.reports import drawn_dataset, evaluated


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory):
    """Two evaluations, the second with less noise, their data set and the page's path."""
    folder = tmp_path_factory.mktemp("comparison")
    dataset = drawn_dataset(folder, IMAGES)
    both = [evaluated(dataset, seed, noise) for seed, noise in ((1, 0.15), (2, 0.1))]
    stored = [Stored(name, evaluation.metrics, evaluation.results, str(folder), {}) for name, evaluation in zip("ab", both)]
    path = folder / "comparison.html"
    write_comparison(str(path), stored, dataset)
    return both, sorted(record.image_id for record in dataset.records), path, dataset


@pytest.fixture(scope="module")
def page(browser, evaluations):
    """The page, loaded once."""
    from tests.helpers.browser import Page
    page = Page(browser, evaluations[2])
    yield page
    asked, console = page.logs()
    assert asked == console == []


def costs_at(evaluation, threshold=None):
    matched = match_boxes(evaluation)[0]
    return matched.costs(IMAGES, matched.threshold if threshold is None else threshold)


def with_sign(difference, limit):
    return f"{'−' if difference < 0 else '+'}{abs(difference):.3f}{' unclear' if 0 < abs(difference) < limit else ''}"


@pytest.fixture(scope="module")
def limits(evaluations):
    """A function of a number of metrics: two standard errors of its difference, from evaluations without each group of images."""
    both, ids, _, dataset = evaluations
    groups = np.random.default_rng(0).permutation(IMAGES) % GROUPS
    parts = []
    for group in range(GROUPS):
        kept = [image for image, own in zip(ids, groups) if own != group]
        rows = ([row for row in one.results if row["image_id"] in kept] for one in both)
        parts.append([score(dataset.coco_json, own, kept, dataset.names, dataset.category_ids).metrics for own in rows])

    def limit(number):
        differences = [number(b) - number(a) for a, b in parts]
        return 2 * ((GROUPS - 1)**2 / GROUPS * statistics.variance(differences)) ** 0.5
    return limit


def test_numbers_side_by_side(page, evaluations, limits):
    first, other = (evaluation.metrics for evaluation in evaluations[0])
    unclear = 0
    for key, a, b, difference in rows_of(page, "#number-table tbody tr"):
        if first[key] < 0:
            assert (a, b, difference) == ("–", "–", "–")
        else:
            limit = limits(lambda metrics, key=key: metrics[key])
            assert (a, b, difference) == (f"{first[key]:.3f}", f"{other[key]:.3f}", with_sign(other[key] - first[key], limit))
            unclear += "unclear" in difference
    assert 0 < unclear < 9
    *classes, everything = rows_of(page, "#class-table :not(thead) > tr")
    for name, _, a, b, difference, *_ in classes:
        aps = first["per_class"][name], other["per_class"][name]
        assert (a, b, difference) == (f"{aps[0]:.3f}", f"{aps[1]:.3f}", with_sign(
            aps[1] - aps[0], limits(lambda metrics, name=name: metrics["per_class"][name])))
    assert everything[2:4] == [f"{first['AP']:.3f}", f"{other['AP']:.3f}"] and len(classes) == 4


def test_images_that_became_better_and_worse(page, evaluations):
    """Each detector has its own confidence threshold."""
    both, ids, *_ = evaluations
    for threshold in (None, 0.9):
        if threshold:
            score_by_keys(page, 90, k=1)
            assert page.find("#score-value-1").text == "0.900"
        gains = costs_at(both[0]) - costs_at(both[1], threshold)
        shown = [ids.index(image) for image in shown_ids(page)]
        np.testing.assert_allclose(np.abs(gains[shown]), np.sort(np.abs(gains))[::-1])
        for value, expected in (("better", gains > 0), ("worse", gains < 0), ("", gains > -np.inf)):
            page.choose("#change", value)
            assert expected.any() and set(shown_ids(page)) == {ids[image] for image in np.flatnonzero(expected)}
    page.click("#best")
    assert page("detectors.map((detector) => detector.threshold)") == [match_boxes(one)[0].threshold for one in both]


def test_detections_of_both_can_be_switched(page):
    def sides():
        first_panel(page)
        found = [counts_of(page, f"#figures figure:first-child svg:nth-child({k})") for k in (1, 2)]
        return [sorted({truth for truth, _ in side}) for side in found]
    assert sides() == [[False, True], [False, True]]
    page.click("#detections-0")
    assert sides() == [[True], [False, True]]
    page.click("#annotations")
    assert sides() == [[], [False]]
    for switch in ("#annotations", "#detections-0"):
        page.click(switch)


def test_a_class_can_be_chosen(page, evaluations):
    both, ids, *_ = evaluations
    page.choose("#class", 2)
    expected = set()
    for evaluation in both:
        matched = match_boxes(evaluation)[0]
        kept = (matched.detections.score >= matched.threshold) & (matched.detections.category == 2)
        expected |= {*matched.detections.image[kept], *matched.ground_truth.image[matched.ground_truth.category == 2]}
    assert set(shown_ids(page)) == {ids[image] for image in expected} and len(expected) < IMAGES
