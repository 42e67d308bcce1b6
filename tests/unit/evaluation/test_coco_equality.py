"""COCO numbers on random data exactly equal plain pycocotools."""
import numpy as np
import pytest

from src.evaluation.coco import KEYS, score
from src.evaluation.matching import precision_and_recall
from tests.helpers.coco_cases import CATEGORIES, KINDS, plain_pycocotools, random_case

SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_plain_pycocotools(kind, seed):
    coco_json, results, images = random_case([seed, len(kind)], **KINDS[kind])
    expected = plain_pycocotools(coco_json, results)
    evaluation = score(coco_json, results, images, [str(category) for category in CATEGORIES], CATEGORIES)
    # All combinations of threshold, area and limit. The twelve numbers use only some of them.
    precision, recall = precision_and_recall(evaluation.ground_truth, evaluation.detections, len(CATEGORIES), expected.params)
    np.testing.assert_array_equal(precision, expected.eval["precision"])
    np.testing.assert_array_equal(recall, expected.eval["recall"])
    np.testing.assert_array_equal(evaluation.precision, expected.eval["precision"])
    assert [evaluation.metrics[key] for key in KEYS] == expected.stats.tolist()
    for column, category in enumerate(sorted(CATEGORIES)):
        values = expected.eval["precision"][:, :, column, 0, -1]
        wanted = values[values > -1].mean() if (values > -1).any() else -1
        assert evaluation.metrics["per_class"][str(category)] == wanted


def test_the_random_data_has_what_it_is_for():
    def cases(kind):
        return [random_case([seed, len(kind)], **KINDS[kind]) for seed in SEEDS]

    most = max(np.unique([(row["image_id"], row["category_id"]) for row in results], axis=0, return_counts=True)[1].max()
               for _, results, _ in cases("more than 100 detections of a class"))
    assert most > 150
    for coco_json, results, images in cases("images without ground truth"):
        with_truth = {row["image_id"] for row in coco_json["annotations"]}
        assert {row["image_id"] for row in results} - with_truth and len(with_truth) < len(images) / 2
    for coco_json, results, _ in cases("empty boxes"):
        for rows in (coco_json["annotations"], results):
            assert any(min(row["bbox"][2:]) == 0 for row in rows)
    average = [plain_pycocotools(*case[:2]).stats[0] for case in cases("plain")]
    assert min(average) > 0.05 and max(average) < 0.95
