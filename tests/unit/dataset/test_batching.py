"""Batches of one canvas, repeat factors by the formula of LVIS (arXiv:1908.03195, section 4.2), and random streams."""
import json
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from src.dataset.annotations import Record
from src.dataset.loader import (
    TrainLoader,
    epoch_order,
    one_canvas_batches,
    repeat_factors,
    sample_repeats,
)
from src.dataset.shapes import ensure_shapes
from src.train.step import SamplingPriorities

THRESHOLD = 0.5


def record(labels):
    return Record(0, "", 40, 60, np.zeros((len(labels), 4), np.float32), np.array(labels, dtype=np.int32))


def test_batches_by_a_worked_example():
    def cut(order, size, fill):
        canvas_index = np.array([0, 1, 0, 1, 0, 1, 1])
        return [batch.tolist() for batch in one_canvas_batches(np.array(order), canvas_index, size, fill)]

    order = [4, 1, 3, 2, 5, 6, 0]  # canvases 0, 1, 1, 0, 1, 1, 0
    assert cut(order, 2, fill=False) == [[4, 2], [1, 3], [5, 6], [0]]
    assert cut(order, 2, fill=True) == [[4, 2], [1, 3], [5, 6], [0, 4]]
    assert cut([1, 0], 3, fill=True) == [[1, 1, 1], [0, 0, 0]]


def test_factors_by_a_worked_example():
    """All of 8 images have class 0, two have class 1, one has class 2; none has class 3. Images without boxes count."""
    records = [record([0]), record([0, 1, 1]), record([0, 2]), record([1, 0]), *[record([0])] * 4]
    factors = repeat_factors(records, 4, THRESHOLD)
    np.testing.assert_allclose(factors, [1, math.sqrt(0.5 / 0.25), math.sqrt(0.5 / 0.125), math.sqrt(2), 1, 1, 1, 1])
    np.testing.assert_array_equal(repeat_factors(records, 4, 0.0), np.ones(8))
    np.testing.assert_allclose(repeat_factors([record([0]), record([])], 1, 1.0), [math.sqrt(2), 1])


def test_each_epoch_rounds_down_or_up_and_the_mean_is_the_factor():
    factors = np.array([1, 1.25, 3.5, 1, 2, 1.7, 1, 1.05, 1.5])
    canvas_index = np.array([0, 0, 1, 1, 0, 1, 0, 1, 1])
    repeats = np.array([sample_repeats(factors, canvas_index, offset) for offset in np.arange(1000) / 1000])
    totals = np.array([repeats[:, canvas_index == canvas].sum(1) for canvas in (0, 1)])
    np.testing.assert_array_equal(totals, [[6] * 1000, [9] * 1000])  # expected values 5.25 and 8.75
    grown = factors * np.where(canvas_index == 0, 6 / 5.25, 9 / 8.75)
    assert (repeats >= np.floor(grown)).all() and (repeats <= np.ceil(grown)).all() and (repeats >= 1).all()
    np.testing.assert_allclose(repeats.mean(0), grown, atol=2e-3)


def test_order_has_each_image_as_often_as_sampled_and_mixes_them():
    factors, canvas_index = np.linspace(1, 4, 200), np.zeros(200)
    orders = [epoch_order(1, epoch, factors, canvas_index) for epoch in range(4)]
    for order in orders:
        counts = np.bincount(order, minlength=200)
        assert len(order) == math.ceil(factors.sum()) and (abs(counts - factors) < 1.01).all()
        assert np.mean(np.diff(order) == 0) < 0.05 and abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.2
    assert len({tuple(order) for order in orders}) == 4


@pytest.fixture
def rare(make_set):
    """12 images with a cat; the first image also has a dog."""
    dataset = make_set(12)
    first = dataset.records[0]
    dataset.records[0] = first._replace(boxes=np.float32([*first.boxes, [3, 3, 12, 12]]), labels=np.int32([*first.labels, 0]))
    return dataset


def test_an_epoch_has_the_rare_image_more_often_each_time_augmented_anew(rare, make_cfg):
    """One image in 12 has a dog: sqrt(0.75 / (1 / 12)) = 3. Two processes share the epoch."""
    crops = [{"RandomCrop": {"prob": 1.0, "min_scale": 0.3, "min_area": 0.1}}]
    loader = TrainLoader(rare, make_cfg(item_transforms=crops, repeat_threshold=0.75, batch_size=14))
    assert loader.steps_per_epoch == 1
    whole = list(loader.batches())
    for batch in whole:
        assert Counter(batch.image_id.tolist()) == {100: 3, **{100 + i: 1 for i in range(1, 12)}}
        assert len({tuple(scale) for scale in batch.scale[batch.image_id == 100].tolist()}) == 3
    ranks = [TrainLoader(rare, make_cfg(item_transforms=crops, repeat_threshold=0.75, batch_size=7), rank, 2) for rank in (0, 1)]
    for batch, *parts in zip(whole, *(rank.batches() for rank in ranks)):
        np.testing.assert_array_equal(np.concatenate([part.image.asnumpy() for part in parts]), batch.image.asnumpy())


def test_all_generators_of_a_run_start_from_different_states(make_set, make_cfg, monkeypatch, tmp_path):
    """Generated images, two epochs with repeated records, their augmentation and the sampling of their steps, with one seed.

    NumPy pads a seed with zeros: the seeds [7, 0] and [7, 0, 0, 0] have the same state.
    """
    states, default_rng = [], np.random.default_rng

    def noted(seed):
        rng = default_rng(seed)
        states.append(json.dumps(rng.bit_generator.state))
        return rng

    loader = TrainLoader(make_set(4), make_cfg(item_transforms=({"RandomFlip": {"prob": 0.5}},)))
    monkeypatch.setattr(np.random, "default_rng", noted)
    loader.epoch_batches.cache_clear()
    ensure_shapes(str(tmp_path / "shapes"), 2, 2, 64, 64, seed=loader.cfg.seed)
    canvas = np.empty((64, 64, 3), np.uint8)
    for number in range(2 * loader.steps_per_epoch):
        for key in loader.batch_keys(number):
            loader.load_sample(key, canvas)
            loader.load_sample(key._replace(repeat=1), canvas)
    sampling = SamplingPriorities(SimpleNamespace(
        **vars(loader.cfg), rpn_head=SimpleNamespace(rpn_label_assignment=SimpleNamespace(use_random=True)),
        bbox_head=SimpleNamespace(bbox_assigner=SimpleNamespace(use_random=True), add_gt_as_proposals=True)))
    for step in range(4):
        sampling._draw(step, 50, 20, 4, 0)
    # Images, epochs, augmentations of 8 records and the same number of repetitions, and rows of 4 steps.
    assert len(states) == 4 + 2 + 16 + 8
    assert len(set(states)) == len(states)
