"""What the page of an evaluation shows, and what it should show: numbers of the evaluation's own Python code on the detections
that are left from a score on."""
from types import SimpleNamespace

import numpy as np

from src.evaluation.confusion import match_any_class
from src.evaluation.error_analysis import (
    CORRECT,
    DETECTION_KINDS,
    IGNORED,
    MISSED,
    TRUTH_OUTCOMES,
    classify,
    image_costs,
    truth_outcomes,
)

IMAGES, SHOWN = 30, 24  # of the evaluation, and of them at first


def at(case, threshold):
    """Everything about the detections with a score of at least `threshold`, matched without the others."""
    found = case.found.select(np.flatnonzero(case.found.score >= threshold))
    kinds, partners = classify(case.truth, found)
    outcomes = truth_outcomes(kinds, partners, len(case.truth.crowd))
    places = match_any_class(case.truth, found, kinds)
    return SimpleNamespace(found=found, kinds=kinds, outcomes=outcomes, places=places, counted=~case.truth.crowd,
                           costs=image_costs(case.truth, found, kinds, partners, threshold, IMAGES))


def cells(case, now):
    """By detection its row of the matrix, and which boxes of the truth nothing is matched with."""
    rows = np.append(case.truth.category, len(case.names))[now.places]
    return rows, np.setdiff1d(np.flatnonzero(now.counted), now.places)


def matrix(case, now):
    """The confusion matrix, annotated by detected classes, the background last."""
    expected = np.zeros((len(case.names) + 1,) * 2, int)
    rows, unmatched = cells(case, now)
    for row, category, kind in zip(rows, now.found.category, now.kinds):
        expected[row, category] += kind != IGNORED
    for box in unmatched:
        expected[case.truth.category[box], -1] += 1
    return expected


def score_by_keys(page, hundredths):
    """Move the slider, its last step with the keyboard."""
    from selenium.webdriver.common.keys import Keys
    page("document.getElementById('score').value = a[0]", (hundredths - 1 if hundredths else 1) / 100)
    page.find("#score").send_keys(Keys.ARROW_RIGHT if hundredths else Keys.ARROW_LEFT)


def shown_ids(page):
    """The ids of the images of the gallery, in order."""
    while page("!document.getElementById('more').hidden"):
        page.click("#more")
    return [int(text) for text in page("[...document.querySelectorAll('#figures figure')].map((node) => node.dataset.id)")]


def rows_of_table(page):
    """The texts of the table of classes."""
    return page("[...document.querySelectorAll('#class-table tbody tr')].map((row) => "
                "[...row.cells].map((cell) => cell.textContent))")


def images_with(case, now, kind=None, category=None):
    """The ids of images with a detection or a missed box of a kind, and of a class."""
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
    """As counts_of, on the first image of the gallery, once it is drawn."""
    page("document.getElementById('figures').scrollIntoView()")
    page.wait("document.querySelector('#figures figure:first-child .panels')")
    return counts_of(page, "#figures figure:first-child")


def counts_of(page, selector):
    """{(whether an annotation, kind): number of boxes} within an element."""
    boxes = page("[...document.querySelectorAll(a[0] + ' .box')].map((node) => [node.classList.contains('truth'), "
                 "node.dataset.kind, +node.dataset.count, node.getAttribute('d').split('z').length - 1])", selector)
    assert all(count == drawn for *_, count, drawn in boxes)
    return {(truth, kind): count for truth, kind, count, _ in boxes}


def boxes_of(case, now, image):
    """As counts_of should be for annotations, and for detections."""
    kinds = [DETECTION_KINDS[kind] for kind in now.kinds[now.found.image == image]]
    own = case.truth.image == image
    outcomes = [TRUTH_OUTCOMES[outcome].replace("found", "correct") for outcome in now.outcomes[own & now.counted]]
    outcomes += ["ignored"] * int((own & case.truth.crowd).sum())
    return ({(True, kind): outcomes.count(kind) for kind in outcomes}, {(False, kind): kinds.count(kind) for kind in kinds})
