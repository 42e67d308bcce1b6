"""Kinds of errors compared with worked examples, and their matching with plain pycocotools."""
import numpy as np
import pytest

from src.evaluation.boxes import to_boxes
from src.evaluation.error_analysis import CORRECT, DETECTION_KINDS, IGNORED, TRUTH_OUTCOMES, classify, error_breakdown
from tests.helpers.coco_cases import CATEGORIES, KINDS, plain_pycocotools, random_case

CAT, DOG = 1, 2
BOX, FAR = [0, 0, 100, 100], [500, 500, 100, 100]


def shifted(pixels, box=BOX):
    """Return `box` of 100 x 100 moved by `pixels`; the IoU is (100 - pixels) / (100 + pixels)."""
    return [box[0] + pixels, *box[1:]]


def breakdown(truth, found):
    """Analyse one image. truth: (category, box[, crowd]) rows; found: (category, box, score) rows."""
    coco_json = {"annotations": [{"image_id": 1, "category_id": row[0], "bbox": row[1], "iscrowd": int(len(row) > 2)}
                                 for row in truth]}
    results = [{"image_id": 1, "category_id": category, "bbox": box, "score": score} for category, box, score in found]
    truth, found, _ = to_boxes(coco_json, results, [1, 2], [CAT, DOG])
    return error_breakdown(truth, found, ["cat", "dog"])


def counts(kinds, **more):
    assert set(more) <= set(kinds)
    return {**{kind: 0 for kind in kinds if kind != "ignored"}, **more}


@pytest.mark.parametrize(("found", "kind", "outcome"), [
    ((CAT, BOX), "correct", "found"),
    ((CAT, shifted(33)), "correct", "found"),           # IoU 67 / 133 = 0.504
    ((CAT, shifted(34)), "localisation", "localisation"),  # 66 / 134 = 0.493
    ((CAT, shifted(81)), "localisation", "localisation"),  # 19 / 181 = 0.105
    ((CAT, shifted(82)), "background", "missed"),       # 18 / 182 = 0.099
    ((CAT, FAR), "background", "missed"),
    ((DOG, BOX), "class", "class"),
    ((DOG, shifted(33)), "class", "class"),
    ((DOG, shifted(34)), "both", "missed"),
    ((DOG, shifted(81)), "both", "missed"),
    ((DOG, shifted(82)), "background", "missed"),
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


def test_thresholds_are_part_of_the_better_kind():
    assert breakdown([(CAT, BOX)], [(CAT, [0, 0, 100, 50], 0.5)])["detections"]["correct"] == 1          # IoU 0.5
    assert breakdown([(CAT, BOX)], [(CAT, [0, 0, 100, 10], 0.5)])["detections"]["localisation"] == 1     # IoU 0.1
    assert breakdown([(CAT, BOX)], [(DOG, [0, 0, 100, 50], 0.5)])["detections"]["class"] == 1


def test_a_second_detection_of_a_box_is_a_duplicate_but_not_of_a_crowd():
    found = [(CAT, BOX, 0.9), (CAT, shifted(5), 0.9), (CAT, FAR, 0.9), (CAT, shifted(5, FAR), 0.9), (CAT, shifted(9, FAR), 0.9)]
    errors = breakdown([(CAT, BOX), (CAT, FAR, "crowd")], found)
    assert errors["detections"] == counts(DETECTION_KINDS, correct=1, duplicate=1)
    assert errors["ground_truth"] == counts(TRUTH_OUTCOMES, found=1)


def test_a_crowd_of_another_class_excuses_nothing_and_is_not_confused():
    errors = breakdown([(CAT, BOX), (CAT, FAR, "crowd")], [(CAT, BOX, 0.9), (DOG, FAR, 0.9)])
    assert errors["detections"] == counts(DETECTION_KINDS, correct=1, background=1)


def test_the_better_detection_takes_the_box_and_the_closest_free_one():
    right = shifted(40)
    errors = breakdown([(CAT, BOX), (CAT, right)], [(CAT, shifted(15), 0.6), (CAT, shifted(1), 0.9)])
    # The better detection matches BOX. The second one, which is also closer to BOX, then matches `right` (IoU 75 / 125).
    assert errors["detections"] == counts(DETECTION_KINDS, correct=2)


def test_localisation_comes_before_class_and_class_before_duplicate():
    near = shifted(60)  # IoU 0.25 with BOX
    errors = breakdown([(CAT, BOX), (DOG, near)], [(CAT, near, 0.9), (DOG, near, 0.8)])
    assert errors["detections"] == counts(DETECTION_KINDS, localisation=1, correct=1)
    assert errors["ground_truth"] == counts(TRUTH_OUTCOMES, found=1, localisation=1)
    errors = breakdown([(CAT, BOX), (DOG, BOX), (CAT, FAR)], [(CAT, BOX, 0.9), (CAT, BOX, 0.9), (DOG, BOX, 0.9), (CAT, FAR, 0.9)])
    assert errors["detections"] == counts(DETECTION_KINDS, correct=3, **{"class": 1})


def test_other_images_do_not_matter():
    coco_json = {"annotations": [{"image_id": 1, "category_id": CAT, "bbox": BOX}]}
    results = [{"image_id": image, "category_id": CAT, "bbox": BOX, "score": 0.5} for image in (1, 2)]
    truth, found, _ = to_boxes(coco_json, results, [1, 2], [CAT])
    assert error_breakdown(truth, found, ["cat"])["detections"] == counts(DETECTION_KINDS, correct=1, background=1)


def test_score_threshold_is_where_f1_is_highest():
    boxes = [(CAT, shifted(200 * number)) for number in range(4)]
    hits = [(CAT, shifted(200 * number), score) for number, score in enumerate((0.9, 0.8, 0.3))]
    wrong = [(CAT, [0, 700 + 200 * number, 50, 50], score) for number, score in enumerate((0.85, 0.7, 0.6, 0.5, 0.1))]
    # F1 by threshold: 0.9 2/5, 0.85 2/6, 0.8 4/7, 0.7 4/8, 0.6 4/9, 0.5 4/10, 0.3 6/11, 0.1 6/12.
    errors = breakdown(boxes, hits + wrong)
    assert errors["score_threshold"] == 0.8
    assert errors["detections"] == counts(DETECTION_KINDS, correct=2, background=1)
    assert errors["ground_truth"] == counts(TRUTH_OUTCOMES, found=2, missed=2)


def test_nothing_there():
    errors = breakdown([], [])
    assert errors["score_threshold"] is None and errors["detections"] == counts(DETECTION_KINDS)
    assert breakdown([(CAT, BOX)], [])["ground_truth"] == counts(TRUTH_OUTCOMES, missed=1)
    # If no detection is correct, all detections are counted.
    assert breakdown([], [(CAT, BOX, 0.9), (DOG, BOX, 0.2)])["detections"] == counts(DETECTION_KINDS, background=2)


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
            for score, match, out in zip(image["dtScores"], image["dtMatches"][0], image["dtIgnore"][0]):
                (ignored if out else correct)[score] = bool(match)
        truth, found, _ = to_boxes(coco_json, results, images, CATEGORIES)
        found = found.select(np.lexsort((-found.score, found.image)))
        kinds, _ = classify(truth.select(np.argsort(truth.image, kind="stable")), found)
        for score, own in zip(found.score, kinds):
            if score in correct or score in ignored:
                assert (own == CORRECT) == correct.get(score, False) and (own == IGNORED) == (score in ignored)
