"""Reads the numbers of an evaluation page, and computes the expected numbers with the evaluation's Python code."""
from types import SimpleNamespace

import numpy as np

from src.report.error_analysis import CORRECT, DETECTION_KINDS, IGNORED, TRUTH_OUTCOMES, classify

IMAGES, SHOWN = 30, 24  # all images of the evaluation, and images shown at first


def at(case, threshold, iou=0.5):
    """Return the matching and counts of the detections with at least confidence `threshold`, without the remaining ones."""
    found = case.found.select(np.flatnonzero(case.found.score >= threshold))
    matched = classify(case.truth, found, iou)
    return SimpleNamespace(found=found, kinds=matched.kinds, outcomes=matched.outcomes(threshold), places=matched.confusion_match,
                           counted=~case.truth.crowd, costs=matched.costs(IMAGES, threshold))


def best_f1(case, category=None):
    """Return F1 at the thresholds 0, 0.01, ..., 1, the best F1 and its lowest threshold, from the counts at each threshold."""
    kinds = classify(case.truth, case.found).kinds
    own = (kinds != IGNORED) & ((case.found.category == category) | (category is None))
    boxes = int((~case.truth.crowd & ((case.truth.category == category) | (category is None))).sum())

    def f1(threshold):
        kept = kinds[own & (case.found.score >= threshold)]
        return 2 * np.count_nonzero(kept == CORRECT) / (len(kept) + boxes)
    best, negative = max((f1(score), -score) for score in case.found.score[own])
    return [f1(number / 100) for number in range(101)], best, -negative


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


def score_by_keys(page, hundredths, k=0):
    """Move the slider of detector k; the last step uses the keyboard."""
    from selenium.webdriver.common.keys import Keys
    page(f"document.getElementById('score-{k}').value = a[0]", (hundredths - 1 if hundredths else 1) / 100)
    page.find(f"#score-{k}").send_keys(Keys.ARROW_RIGHT if hundredths else Keys.ARROW_LEFT)


def shown_ids(page):
    """Return the ids of the gallery's images, in order."""
    while page("!document.getElementById('more').hidden"):
        page.click("#more")
    return [int(text) for text in page("[...document.querySelectorAll('#figures figure')].map((node) => node.dataset.id)")]


def rows_of(page, rows):
    """Return the texts of table rows."""
    return page("[...document.querySelectorAll(a[0])].map((row) => [...row.cells].map((cell) => cell.textContent))", rows)


def images_with(case, now, kind=None, category=None):
    """Return the ids of images with a detection or missed box of the given kind and class; without a kind, with any box."""
    detections = [DETECTION_KINDS[k] for k in now.kinds]
    boxes = ["missed" if counted and TRUTH_OUTCOMES[k] == "missed" else "" for k, counted in zip(now.outcomes, now.counted)]
    rows = [*zip(now.found.image, now.found.category, detections), *zip(case.truth.image, case.truth.category, boxes)]
    return {case.ids[image] for image, label, found in rows if category in (None, label) and (
        kind in (None, found) or (kind == "error" and found not in ("", "correct", "ignored")))}


def first_panel(page):
    """Return `counts_of` for the first image of the gallery, after it is drawn."""
    page("document.getElementById('figures').scrollIntoView()")
    page.wait("document.querySelector('#figures figure:first-child .panels')")
    return counts_of(page, "#figures figure:first-child")


def counts_of(page, selector):
    """Return {(whether an annotation, kind): number of boxes} within an element."""
    boxes = page("[...document.querySelectorAll(a[0] + ' .box')].map((node) => [node.classList.contains('truth'), "
                 "node.dataset.kind, node.getAttribute('d').split('z').length - 1])", selector)
    return {(truth, kind): count for truth, kind, count in boxes}


def boxes_of(case, now, image):
    """Return the expected `counts_of` for annotations and detections."""
    kinds = [DETECTION_KINDS[kind] for kind in now.kinds[now.found.image == image]]
    own = case.truth.image == image
    outcomes = [TRUTH_OUTCOMES[outcome].replace("found", "correct") for outcome in now.outcomes[own & now.counted]]
    outcomes += ["ignored"] * int((own & case.truth.crowd).sum())
    return ({(True, kind): outcomes.count(kind) for kind in outcomes}, {(False, kind): kinds.count(kind) for kind in kinds})
