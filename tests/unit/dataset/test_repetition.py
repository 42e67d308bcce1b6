"""src/dataset/repetition.py: repeat factors of images by the formula of LVIS (arXiv:1908.03195, section 4.2)."""
import math
from collections import Counter

import numpy as np
import pytest

from src.dataset.annotations import Record, load_coco
from src.dataset.batching import epoch_order
from src.dataset.loader import TrainLoader
from src.dataset.repetition import draw_repeats, occurrences, repeat_factors

THRESHOLD = 0.5


def record(labels, number=0):
    return Record(number, "", 40, 60, np.zeros((len(labels), 4), np.float32), np.array(labels, dtype=np.int32))


def test_factors_by_a_worked_example():
    """All of 8 images have class 0, two have class 1, one has class 2; none has class 3."""
    records = [record([0]), record([0, 1, 1]), record([0, 2]), record([1, 0]), *[record([0])] * 4]
    factors = repeat_factors(records, 4, THRESHOLD)
    np.testing.assert_allclose(factors, [1, math.sqrt(0.5 / 0.25), math.sqrt(0.5 / 0.125), math.sqrt(2), 1, 1, 1, 1])
    np.testing.assert_array_equal(repeat_factors(records, 4, 0.0), np.ones(8))


def test_images_without_boxes_are_images_of_the_set_and_come_once():
    np.testing.assert_allclose(repeat_factors([record([0]), record([])], 1, 1.0), [math.sqrt(2), 1])


def test_each_epoch_rounds_down_or_up_and_the_mean_is_the_factor():
    factors = np.array([1, 1.25, 3.5, 1, 2, 1.7, 1, 1.05, 1.5])
    canvas_of = np.array([0, 0, 1, 1, 0, 1, 0, 1, 1])
    drawn = np.array([draw_repeats(factors, canvas_of, offset) for offset in np.arange(1000) / 1000])
    totals = np.array([drawn[:, canvas_of == canvas].sum(1) for canvas in (0, 1)])
    np.testing.assert_array_equal(totals, [[6] * 1000, [9] * 1000])  # expected values 5.25 and 8.75
    grown = factors * np.where(canvas_of == 0, 6 / 5.25, 9 / 8.75)
    assert (drawn >= np.floor(grown)).all() and (drawn <= np.ceil(grown)).all() and (drawn >= 1).all()
    np.testing.assert_allclose(drawn.mean(0), grown, atol=2e-3)


def test_order_has_each_image_as_often_as_drawn_and_mixes_them():
    factors, canvas_of = np.linspace(1, 4, 200), np.zeros(200)
    orders = [epoch_order(1, epoch, factors, canvas_of) for epoch in range(4)]
    for order in orders:
        counts = np.bincount(order, minlength=200)
        assert len(order) == math.ceil(factors.sum()) and (abs(counts - factors) < 1.01).all()
        assert np.mean(np.diff(order) == 0) < 0.05 and abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.2
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(orders[2], epoch_order(1, 2, factors, canvas_of))


def test_occurrences_by_a_worked_example():
    np.testing.assert_array_equal(occurrences(np.array([3, 0, 3, 1, 0, 3, 2])), [0, 0, 1, 0, 1, 2, 0])


@pytest.fixture
def rare(write_coco):
    """12 images with a cat; the first image also has a dog."""
    images = [{"id": 100 + i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in range(12)]
    boxes = [{"id": i, "image_id": 100 + i, "category_id": 5, "bbox": [4 * i, 2, 10, 20]} for i in range(12)]
    return load_coco(*write_coco(images, [*boxes, {"id": 50, "image_id": 100, "category_id": 2, "bbox": [3, 3, 9, 9]}]))


def test_an_epoch_has_the_rare_image_more_often_each_time_augmented_anew(rare, make_cfg):
    """One image in 12 has a dog: sqrt(0.75 / (1 / 12)) = 3."""
    flips = [{"RandomCrop": {"prob": 1.0, "min_scale": 0.3, "min_area": 0.1}}]
    loader = TrainLoader(rare, make_cfg(item_transforms=flips, repeat_threshold=0.75, batch_size=7))
    assert loader.steps_per_epoch == 2
    found = list(loader.batches())
    for epoch in range(2):
        ids = np.concatenate([batch.image_id for batch in found[2 * epoch:2 * epoch + 2]])
        assert Counter(ids.tolist()) == {100: 3, **{100 + i: 1 for i in range(1, 12)}}
        scales = np.concatenate([batch.scale for batch in found[2 * epoch:2 * epoch + 2]])
        assert len({tuple(scale) for scale in scales[ids == 100].tolist()}) == 3
    again = list(loader.batches(start=1))
    for one, other in zip(again, found[1:]):
        np.testing.assert_array_equal(one.image.asnumpy(), other.image.asnumpy())


def test_ranks_share_the_repeated_epoch(rare, make_cfg):
    whole = list(TrainLoader(rare, make_cfg(repeat_threshold=0.75, batch_size=6)).batches())
    ranks = [list(TrainLoader(rare, make_cfg(repeat_threshold=0.75, batch_size=3), rank, 2).batches()) for rank in (0, 1)]
    for number, batch in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([ranks[0][number].image_id, ranks[1][number].image_id]), batch.image_id)
