"""Read the numbers from an evaluation page, and compute the expected ones with the evaluation's Python code from the
detections above a confidence threshold."""
from types import SimpleNamespace

import numpy as np

from src.report.error_analysis import (
    CORRECT,
    DETECTION_KINDS,
    IGNORED,
    MISSED,
    TRUTH_OUTCOMES,
    classify,
    image_costs,
    match_any_class,
    truth_outcomes,
)

IMAGES, SHOWN = 30, 24  # all images of the evaluation, and images shown at first


def at(case, threshold):
    """Return the matching and counts of the detections with at least confidence `threshold`, without the remaining ones."""
    found = case.found.select(np.flatnonzero(case.found.score >= threshold))
    kinds, partners = classify(case.truth, found)
    outcomes = truth_outcomes(kinds, partners, len(case.truth.crowd))
    places = match_any_class(case.truth, found, kinds)
    return SimpleNamespace(found=found, kinds=kinds, outcomes=outcomes, places=places, counted=~case.truth.crowd,
                           costs=image_costs(case.truth, found, kinds, partners, threshold, IMAGES))


def cells(case, now):
    """Return the matrix row of each detection, and the ground-truth boxes without a matching detection."""
    rows = np.append(case.truth.category, len(case.names))[now.places]
    return rows, np.setdiff1d(np.flatnonzero(now.counted), now.places)


def matrix(case, now):
    """Return the confusion matrix, annotated by detected classes, background last."""
    expected = np.zeros((len(case.names) + 1,) * 2, int)
    rows, unmatched = cells(case, now)
    for row, category, kind in zip(rows, now.found.category, now.kinds):
        expected[row, category] += kind != IGNORED
    for box in unmatched:
        expected[case.truth.category[box], -1] += 1
    return expected


def score_by_keys(page, hundredths):
    """Move the slider; the last step uses the keyboard."""
    from selenium.webdriver.common.keys import Keys
    page("document.getElementById('score').value = a[0]", (hundredths - 1 if hundredths else 1) / 100)
    page.find("#score").send_keys(Keys.ARROW_RIGHT if hundredths else Keys.ARROW_LEFT)


def shown_ids(page):
    """Return the ids of the gallery's images, in order."""
    while page("!document.getElementById('more').hidden"):
        page.click("#more")
    return [int(text) for text in page("[...document.querySelectorAll('#figures figure')].map((node) => node.dataset.id)")]


def rows_of_table(page):
    """Return the texts of the table of classes."""
    return page("[...document.querySelectorAll('#class-table tbody tr')].map((row) => "
                "[...row.cells].map((cell) => cell.textContent))")


def images_with(case, now, kind=None, category=None):
    """Return the ids of images with a detection or missed box of the given kind and class."""
    detections = np.ones(len(now.kinds), bool) if category is None else now.found.category == category
    boxes = np.ones(len(now.counted), bool) if category is None else case.truth.category == category
    if kind == "missed":
        detections, boxes = detections & False, boxes & now.counted & (now.outcomes == MISSED)
    elif kind == "error":
        detections = detections & ~np.isin(now.kinds, (CORRECT, IGNORED))
        boxes = boxes & now.counted & (now.outcomes == MISSED)
    elif kind:
        detections, boxes = detections & (now.kinds == DETECTION_KINDS.index(kind)), boxes & False
    return {case.ids[image] for image in [*now.found.image[detections], *case.truth.image[boxes]]}


def first_panel(page):
    """Return `counts_of` for the first image of the gallery, after it is drawn."""
    page("document.getElementById('figures').scrollIntoView()")
    page.wait("document.querySelector('#figures figure:first-child .panels')")
    return counts_of(page, "#figures figure:first-child")


def counts_of(page, selector):
    """Return {(whether an annotation, kind): number of boxes} within an element."""
    boxes = page("[...document.querySelectorAll(a[0] + ' .box')].map((node) => [node.classList.contains('truth'), "
                 "node.dataset.kind, +node.dataset.count, node.getAttribute('d').split('z').length - 1])", selector)
    assert all(count == drawn for *_, count, drawn in boxes)
    return {(truth, kind): count for truth, kind, count, _ in boxes}


def boxes_of(case, now, image):
    """Return the expected `counts_of` for annotations and detections."""
    kinds = [DETECTION_KINDS[kind] for kind in now.kinds[now.found.image == image]]
    own = case.truth.image == image
    outcomes = [TRUTH_OUTCOMES[outcome].replace("found", "correct") for outcome in now.outcomes[own & now.counted]]
    outcomes += ["ignored"] * int((own & case.truth.crowd).sum())
    return ({(True, kind): outcomes.count(kind) for kind in outcomes}, {(False, kind): kinds.count(kind) for kind in kinds})
