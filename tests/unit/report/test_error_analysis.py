"""src/report/error_analysis.py compared with worked examples, plain loops and plain pycocotools."""
import logging

import cv2
import numpy as np
import pytest

from src.evaluation.coco import score, to_boxes
from src.report.error_analysis import (
    CORRECT,
    CURVES,
    DETECTION_KINDS,
    IGNORED,
    RECALLS,
    TRUTH_OUTCOMES,
    classify,
    error_breakdown,
    sort_by_image,
    write_analysis,
)
from src.report.evaluation import match_boxes
from tests.helpers.coco_cases import CATEGORIES, KINDS, plain_pycocotools, random_case

CAT, DOG = 1, 2
BOX, FAR = [0, 0, 100, 100], [500, 500, 100, 100]
NAMES = [str(category) for category in CATEGORIES]


def shifted(pixels, box=BOX):
    """Return `box` of 100 x 100 moved by `pixels`; the IoU is (100 - pixels) / (100 + pixels)."""
    return [box[0] + pixels, *box[1:]]


def sorted_boxes(coco_json, results, images, categories=(CAT, DOG)):
    return sort_by_image(*to_boxes(coco_json, results, list(images), list(categories))[:2])


def boxes_of(truth, found, images=(1,)):
    """truth: (image, category, box[, crowd]) rows; found: (image, category, box, score) rows. Return both as sorted Boxes."""
    coco_json = {"annotations": [{"image_id": row[0], "category_id": row[1], "bbox": row[2], "iscrowd": int(len(row) > 3)}
                                 for row in truth]}
    return sorted_boxes(coco_json, [dict(zip(("image_id", "category_id", "bbox", "score"), row)) for row in found], images)


def breakdown(truth, found):
    """Analyse one image. truth: (category, box[, crowd]) rows; found: (category, box, score) rows."""
    return error_breakdown(classify(*boxes_of([(1, *row) for row in truth], [(1, *row) for row in found])), ["cat", "dog"])


def random_boxes(kind, seed=0):
    coco_json, results, images = random_case([seed, len(kind)], **KINDS[kind])
    truth, found = sorted_boxes(coco_json, results, images, CATEGORIES)
    return classify(truth, found)


def counts(kinds, **more):
    assert set(more) <= set(kinds)
    return {**{kind: 0 for kind in kinds if kind != "ignored"}, **more}


@pytest.mark.parametrize(("found", "kind", "outcome"), [
    ((CAT, BOX), "correct", "found"),
    ((CAT, shifted(33)), "correct", "found"),           # IoU 67 / 133 = 0.504
    ((CAT, shifted(34)), "localisation", "localisation"),  # 66 / 134 = 0.493
    ((CAT, shifted(81)), "localisation", "localisation"),  # 19 / 181 = 0.105
    ((CAT, shifted(82)), "background", "missed"),       # 18 / 182 = 0.099
    ((DOG, BOX), "class", "class"),
    ((DOG, shifted(33)), "class", "class"),
    ((DOG, shifted(34)), "both", "missed"),
    ((DOG, shifted(81)), "both", "missed"),
    ((DOG, shifted(82)), "background", "missed"),
    # Thresholds belong to the better kind: IoU 0.5, 0.1 and 0.5.
    ((CAT, [0, 0, 100, 50]), "correct", "found"),
    ((CAT, [0, 0, 100, 10]), "localisation", "localisation"),
    ((DOG, [0, 0, 100, 50]), "class", "class"),
])
def test_one_detection_and_one_box(found, kind, outcome):
    errors = breakdown([(CAT, BOX)], [(*found, 0.5)])
    assert errors["detections"] == counts(DETECTION_KINDS, **{kind: 1})
    assert errors["ground_truth"] == counts(TRUTH_OUTCOMES, **{outcome: 1})
    assert errors["score_threshold"] == 0.5
    name, other = ("cat", "dog") if found[0] == CAT else ("dog", "cat")
    assert errors["per_class"][name]["detections"] == errors["detections"]
    assert errors["per_class"][other]["detections"] == counts(DETECTION_KINDS)
    assert errors["per_class"]["cat"]["ground_truth"] == errors["ground_truth"]


NEAR = shifted(60)  # IoU 0.25 with BOX


@pytest.mark.parametrize(("truth", "found", "detections", "outcomes"), [
    # A second detection of a box is a duplicate, but not of a crowd.
    ([(CAT, BOX), (CAT, FAR, "crowd")], [(CAT, BOX, 0.9), (CAT, shifted(5), 0.9), (CAT, FAR, 0.9), (CAT, shifted(5, FAR), 0.9)],
     {"correct": 1, "duplicate": 1}, {"found": 1}),
    # A crowd of another class excuses nothing and is not confused.
    ([(CAT, BOX), (CAT, FAR, "crowd")], [(CAT, BOX, 0.9), (DOG, FAR, 0.9)], {"correct": 1, "background": 1}, {"found": 1}),
    # The better detection matches BOX. The second one, which is also closer to BOX, matches the free box (IoU 75 / 125).
    ([(CAT, BOX), (CAT, shifted(40))], [(CAT, shifted(15), 0.6), (CAT, shifted(1), 0.9)], {"correct": 2}, {"found": 2}),
    # Localisation comes before class, and class before duplicate.
    ([(CAT, BOX), (DOG, NEAR)], [(CAT, NEAR, 0.9), (DOG, NEAR, 0.8)],
     {"localisation": 1, "correct": 1}, {"found": 1, "localisation": 1}),
    ([(CAT, BOX), (DOG, BOX), (CAT, FAR)], [(CAT, BOX, 0.9), (CAT, BOX, 0.9), (DOG, BOX, 0.9), (CAT, FAR, 0.9)],
     {"correct": 3, "class": 1}, {"found": 3}),
    ([], [], {}, {}),
    ([(CAT, BOX)], [], {}, {"missed": 1}),
    # If no detection is correct, all detections are counted.
    ([], [(CAT, BOX, 0.9), (DOG, BOX, 0.2)], {"background": 2}, {}),
])
def test_several_detections_and_boxes(truth, found, detections, outcomes):
    errors = breakdown(truth, found)
    assert errors["detections"] == counts(DETECTION_KINDS, **detections)
    assert errors["ground_truth"] == counts(TRUTH_OUTCOMES, **outcomes)
    assert found or errors["score_threshold"] is None


@pytest.mark.parametrize("kind", KINDS)
def test_correct_and_ignored_detections_are_those_of_pycocotools(kind):
    for seed in range(3):
        coco_json, results, images = random_case([seed, len(kind)], **KINDS[kind])
        # pycocotools ignores detections after the 100 best of an image and class, and the order of equal scores is undefined.
        for number, row in enumerate(results):
            row["score"] += 1e-6 * number
        evaluation = plain_pycocotools(coco_json, results)
        correct, ignored = {}, {}
        for image in filter(None, evaluation.evalImgs):
            if image["aRng"] != evaluation.params.areaRng[0]:
                continue
            for value, match, out in zip(image["dtScores"], image["dtMatches"][0], image["dtIgnore"][0]):
                (ignored if out else correct)[value] = bool(match)
        truth, found = sorted_boxes(coco_json, results, images, CATEGORIES)
        kinds = classify(truth, found).kinds
        for value, own in zip(found.score, kinds):
            if value in correct or value in ignored:
                assert (own == CORRECT) == correct.get(value, False) and (own == IGNORED) == (value in ignored)


@pytest.mark.parametrize(("truth", "found", "expected"), [
    # With equal overlaps, the box of the same class is matched: rows are in the order of the file.
    ([(1, CAT, BOX), (1, DOG, BOX)], [(1, CAT, BOX, 0.9), (1, DOG, BOX, 0.8)], [0, 1]),
    ([(1, DOG, BOX), (1, CAT, BOX)], [(1, CAT, BOX, 0.9), (1, DOG, BOX, 0.8)], [1, 0]),
    # The box with the largest overlap is matched, whatever its class.
    ([(1, CAT, BOX), (1, DOG, [10, 0, 100, 100])], [(1, CAT, [9, 0, 100, 100], 0.9)], [1]),
    # Crowds are not boxes. Detections that a crowd excuses are ignored; a crowd of another class excuses no detection.
    ([(1, CAT, BOX, "crowd"), (1, DOG, BOX)], [(1, CAT, BOX, 0.9), (1, DOG, BOX, 0.5)], [-1, 1]),
    ([(1, CAT, BOX, "crowd")], [(1, DOG, BOX, 0.9)], [-1]),
])
def test_detections_are_matched_whatever_the_classes(truth, found, expected):
    """The comparison with a plain loop has no equal overlaps."""
    truth, found = boxes_of(truth, found)
    assert classify(truth, found).confusion_match.tolist() == expected


def overlap(box, other):
    sides = [min(box[k] + box[k + 2], other[k] + other[k + 2]) - max(box[k], other[k]) for k in (0, 1)]
    common = max(sides[0], 0) * max(sides[1], 0)
    return common / (box[2] * box[3] + other[2] * other[3] - common)


@pytest.mark.parametrize("kind", ["plain", "crowds", "one image", "images without ground truth"])
def test_matches_are_those_of_a_plain_loop(kind):
    truth, found, kinds, _, matches = random_boxes(kind)
    taken, expected = set(), []
    for row in range(len(found.score)):
        free = [(overlap(found.xywh[row], truth.xywh[box]), box) for box in range(len(truth.crowd))
                if truth.image[box] == found.image[row] and box not in taken and not truth.crowd[box]]
        best = max(free, default=(0, -1)) if kinds[row] != IGNORED else (0, -1)
        expected.append(best[1] if best[0] >= 0.5 else -1)
        taken.add(expected[-1])
    assert matches.tolist() == expected
    assert max(expected) >= 0


def test_costs_of_images():
    truth = [(1, CAT, BOX), (1, CAT, FAR), (2, DOG, BOX), (3, CAT, BOX, "crowd"), (4, CAT, BOX)]
    found = [(1, CAT, BOX, 0.9), (1, CAT, [0, 0, 100, 40], 0.7), (1, DOG, [900, 0, 5, 5], 0.4), (2, CAT, BOX, 0.8),
             (3, CAT, BOX, 0.9), (3, DOG, FAR, 0.6), (4, CAT, BOX, 0.55)]
    matched = classify(*boxes_of(truth, found, images=(1, 2, 3, 4, 5)))
    # Image 1: found, missed, a second box that is too low, nothing there. 2: labelled as cat, so missed. 3: a crowd is no error.
    assert matched.costs(5, 0.0) == pytest.approx([1 + 0.7 + 0.4, 1 + 0.8, 0.6, 0, 0])
    assert matched.costs(5, 0.6) == pytest.approx([1 + 0.7, 1 + 0.8, 0.6, 1, 0])
    assert matched.costs(5, 0.61) == pytest.approx([1 + 0.7, 1 + 0.8, 0, 1, 0])
    assert matched.costs(5, np.inf) == pytest.approx([2, 1, 0, 1, 0])


def test_curves_are_those_of_pycocotools():
    coco_json, results, images = random_case(1, images=4, hits=15, misses=60, crowded=0.7)  # more than 100 detections per class
    expected = plain_pycocotools(coco_json, results)
    precision = score(coco_json, results, images, NAMES, CATEGORIES).precision[CURVES]
    np.testing.assert_array_equal(RECALLS, expected.params.recThrs)
    # IoU 0.50 and 0.75, all areas, 100 detections.
    np.testing.assert_allclose(precision, expected.eval["precision"][[0, 5], :, :, 0, 2], rtol=0, atol=1e-12)


def test_files_and_names(tmp_path, caplog, monkeypatch):
    """A chart that cannot be written is logged."""
    monkeypatch.setattr(logging.getLogger("faster_rcnn"), "propagate", True)
    (tmp_path / "errors.png").mkdir()
    coco_json, results, images = random_case(7)
    evaluation = score(coco_json, results, images, NAMES, CATEGORIES)
    errors = write_analysis(str(tmp_path), evaluation, match_boxes(evaluation)[0])
    assert cv2.imread(str(tmp_path / "precision_recall.png")) is not None
    assert [record.levelname for record in caplog.records] == ["ERROR"] and "errors.png could not be drawn" in caplog.text
    wanted = {name: sum(row["category_id"] == category and not row["iscrowd"] for row in coco_json["annotations"])
              for name, category in zip(NAMES, CATEGORIES)}
    assert {name: sum(part["ground_truth"].values()) for name, part in errors["per_class"].items()} == wanted
    assert max(wanted.values()) > 2 and errors["detections"]["correct"] > 0
