"""src/evaluation/confusion.py, f1.py and image_costs.py compared with worked examples, plain loops and the error analysis."""
import numpy as np
import pytest

from src.evaluation.boxes import to_boxes
from src.evaluation.confusion import match_any_class
from src.evaluation.error_analysis import CORRECT, IGNORED, by_image, classify, error_breakdown, image_costs
from src.evaluation.f1 import THRESHOLDS, f1_curves
from tests.helpers.coco_cases import CATEGORIES, KINDS, random_case

CAT, DOG = 1, 2
BOX, FAR = [0, 0, 100, 100], [500, 500, 100, 100]


def matched(truth, found, images=(1,), categories=(CAT, DOG)):
    """truth: (image, category, box[, crowd]) rows; found: (image, category, box, score) rows -> boxes, kinds, partners."""
    coco_json = {"annotations": [{"image_id": row[0], "category_id": row[1], "bbox": row[2], "iscrowd": int(len(row) > 3)}
                                 for row in truth]}
    results = [dict(zip(("image_id", "category_id", "bbox", "score"), row)) for row in found]
    truth, found = by_image(*to_boxes(coco_json, results, list(images), list(categories))[:2])
    return truth, found, *classify(truth, found)


def random_boxes(kind, seed=0):
    coco_json, results, images = random_case([seed, len(kind)], **KINDS[kind])
    truth, found, _ = to_boxes(coco_json, results, images, CATEGORIES)
    truth, found = by_image(truth, found)
    return truth, found, *classify(truth, found), len(images)


@pytest.mark.parametrize(("truth", "found", "expected"), [
    ([(1, CAT, BOX)], [(1, DOG, BOX, 0.9)], [0]),
    ([(1, CAT, BOX)], [(1, CAT, [0, 0, 100, 49], 0.9)], [-1]),
    # The detection with the higher score matches the box, and the second one matches nothing.
    ([(1, CAT, BOX)], [(1, CAT, BOX, 0.3), (1, DOG, BOX, 0.9)], [0, -1]),
    # With equal overlaps, the box of the same class is matched: rows are in the order of the file.
    ([(1, CAT, BOX), (1, DOG, BOX)], [(1, CAT, BOX, 0.9), (1, DOG, BOX, 0.8)], [0, 1]),
    ([(1, DOG, BOX), (1, CAT, BOX)], [(1, CAT, BOX, 0.9), (1, DOG, BOX, 0.8)], [1, 0]),
    # The box with the largest overlap is matched, whatever its class.
    ([(1, CAT, BOX), (1, DOG, [10, 0, 100, 100])], [(1, CAT, [9, 0, 100, 100], 0.9)], [1]),
    # Crowds are not boxes. Detections that a crowd excuses are ignored; a crowd of another class excuses no detection.
    ([(1, CAT, BOX, "crowd"), (1, DOG, BOX)], [(1, CAT, BOX, 0.9), (1, DOG, BOX, 0.5)], [-1, 1]),
    ([(1, CAT, BOX, "crowd")], [(1, DOG, BOX, 0.9)], [-1]),
    ([(2, CAT, BOX)], [(1, CAT, BOX, 0.9), (2, CAT, BOX, 0.1)], [-1, 0]),
])
def test_detections_are_matched_whatever_the_classes(truth, found, expected):
    truth, found, kinds, _ = matched(truth, found, images=(1, 2))
    assert match_any_class(truth, found, kinds).tolist() == expected


def overlap(box, other):
    sides = [min(box[k] + box[k + 2], other[k] + other[k + 2]) - max(box[k], other[k]) for k in (0, 1)]
    common = max(sides[0], 0) * max(sides[1], 0)
    return common / (box[2] * box[3] + other[2] * other[3] - common)


@pytest.mark.parametrize("kind", ["plain", "crowds", "one image", "images without ground truth"])
def test_matches_are_those_of_a_plain_loop(kind):
    truth, found, kinds, _, _ = random_boxes(kind)
    taken, expected = set(), []
    for row in range(len(found.score)):
        free = [(overlap(found.xywh[row], truth.xywh[box]), box) for box in range(len(truth.crowd))
                if truth.image[box] == found.image[row] and box not in taken and not truth.crowd[box]]
        best = max(free, default=(0, -1)) if kinds[row] != IGNORED else (0, -1)
        expected.append(best[1] if best[0] >= 0.5 else -1)
        taken.add(expected[-1])
    assert match_any_class(truth, found, kinds).tolist() == expected
    assert max(expected) >= 0


@pytest.mark.parametrize("kind", ["plain", "crowds", "tied scores", "hardly any detection"])
def test_f1_and_its_best_threshold(kind):
    truth, found, kinds, _, _ = random_boxes(kind)
    curves = f1_curves(truth, found, kinds, len(CATEGORIES))
    for k, curve in enumerate(curves):
        of_class = [boxes.select(np.flatnonzero((boxes.category == k) | (k == len(CATEGORIES)))) for boxes in (truth, found)]
        own = kinds[(found.category == k) | (k == len(CATEGORIES))]
        positives = int((~of_class[0].crowd).sum())

        def f1(threshold, scores=of_class[1].score, own=own, positives=positives):
            kept = own[(scores >= threshold) & (own != IGNORED)]
            return 2 * (kept == CORRECT).sum() / max(len(kept) + positives, 1)

        np.testing.assert_allclose(curve.f1, [f1(threshold) for threshold in THRESHOLDS])
        # The error analysis of one class: other classes do not change which detections of the class are correct.
        errors = error_breakdown(*of_class, CATEGORIES)
        expected = np.inf if errors["score_threshold"] is None else errors["score_threshold"]
        assert curve.best_score == expected and curve.best_f1 == pytest.approx(f1(expected))
        assert all(curve.best_f1 >= f1(score) - 1e-12 for score in of_class[1].score)


def test_costs_of_images():
    truth = [(1, CAT, BOX), (1, CAT, FAR), (2, DOG, BOX), (3, CAT, BOX, "crowd"), (4, CAT, BOX)]
    found = [(1, CAT, BOX, 0.9), (1, CAT, [0, 0, 100, 40], 0.7), (1, DOG, [900, 0, 5, 5], 0.4), (2, CAT, BOX, 0.8),
             (3, CAT, BOX, 0.9), (3, DOG, FAR, 0.6), (4, CAT, BOX, 0.55)]
    boxes = matched(truth, found, images=(1, 2, 3, 4, 5))
    # Image 1: found, missed, a second box that is too low, nothing there. 2: labelled as cat, so missed. 3: a crowd is no error.
    assert image_costs(*boxes, 0.0, 5) == pytest.approx([1 + 0.7 + 0.4, 1 + 0.8, 0.6, 0, 0])
    assert image_costs(*boxes, 0.6, 5) == pytest.approx([1 + 0.7, 1 + 0.8, 0.6, 1, 0])
    assert image_costs(*boxes, 0.61, 5) == pytest.approx([1 + 0.7, 1 + 0.8, 0, 1, 0])
    assert image_costs(*boxes, np.inf, 5) == pytest.approx([2, 1, 0, 1, 0])


@pytest.mark.parametrize("kind", ["plain", "crowds"])
def test_costs_agree_with_the_error_analysis(kind):
    truth, found, kinds, partners, images = random_boxes(kind)
    errors = error_breakdown(truth, found, [str(category) for category in CATEGORIES])
    threshold = errors["score_threshold"]
    false = (found.score >= threshold) & ~np.isin(kinds, (CORRECT, IGNORED))
    lost = sum(errors["ground_truth"].values()) - errors["ground_truth"]["found"]
    costs = image_costs(truth, found, kinds, partners, threshold, images)
    assert costs.sum() == pytest.approx(found.score[false].sum() + lost) and lost > 0 and false.any()
