"""SamplingPriorities in src/train/step.py: the random numbers of a step."""
import gc
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from src.train.step import SamplingPriorities


def priorities(seed=5, random_anchors=True, random_rois=True, add_boxes=True, batch_size=3, rank=0, accumulate_steps=1):
    return SamplingPriorities(SimpleNamespace(
        seed=seed, batch_size=batch_size, accumulate_steps=accumulate_steps,
        rpn_head=SimpleNamespace(rpn_label_assignment=SimpleNamespace(use_random=random_anchors)),
        bbox_head=SimpleNamespace(bbox_assigner=SimpleNamespace(use_random=random_rois), add_gt_as_proposals=add_boxes),
        data=SimpleNamespace(train_transforms=SimpleNamespace(
            item_transforms=[{"LabelsPadding": {"padding_size": 4, "padding_value": -1}}]))), rank=rank)


def draw(source, step=0, padded_boxes=4, micro_batch=0):
    return tuple(tensor.asnumpy() for tensor in source.draw(step, 50, 20, padded_boxes, micro_batch))


@pytest.mark.parametrize(("random_anchors", "random_rois", "length"), [(True, True, 24), (True, False, 20), (False, True, 24)])
def test_rows_are_different_permutations_of_each_seed_and_step_or_falling(random_anchors, random_rois, length):
    """Without random sampling, the first rows have the highest priority."""
    options = {"random_anchors": random_anchors, "random_rois": random_rois, "add_boxes": length == 24}
    found, *others = (draw(priorities(seed, **options), step) for seed, step in ((5, 7), (5, 8), (6, 7)))
    for i, (random, columns) in enumerate(((random_anchors, 50), (random_rois, length))):
        assert found[i].shape == (3, columns) and found[i].dtype == np.float32
        falling = np.tile(np.arange(columns)[::-1], (3, 1))
        np.testing.assert_array_equal(-np.sort(-found[i], 1), falling)
        assert len({tuple(row) for row in found[i]}) == (3 if random else 1)
        assert all(np.array_equal(found[i], other) != random for other in (falling, *(other[i] for other in others)))


def test_the_order_of_candidates_does_not_depend_on_shorter_box_lists():
    """The box lists of a data set may be shorter than the configured padding of 4 boxes, or longer."""
    rois, shorter, longer = (draw(priorities(), 3, padded_boxes)[1] for padded_boxes in (4, 1, 7))
    np.testing.assert_array_equal(np.argsort(shorter), np.argsort(rois[:, :21]))
    np.testing.assert_array_equal(np.sort(shorter), np.tile(np.arange(21), (3, 1)))
    assert longer.shape == (3, 27)


def test_all_priorities_are_equally_likely():
    source = priorities()
    first = np.array([draw(source, step)[1][:, 0] for step in range(800)]).reshape(-1)
    counts = np.bincount(first.astype(int), minlength=24)
    # 2400 samples of 24 values: five standard deviations.
    assert np.abs(counts - 100).max() < 5 * np.sqrt(100 * 23 / 24)


def test_the_micro_batches_of_two_processes_have_the_rows_of_one_batch():
    whole = draw(priorities(batch_size=12), step=3)
    ranks = [priorities(batch_size=2, accumulate_steps=3, rank=rank) for rank in (0, 1)]
    parts = [draw(rank, step=3, micro_batch=number) for rank in ranks for number in range(3)]
    for i in range(2):
        np.testing.assert_array_equal(np.concatenate([part[i] for part in parts]), whole[i])


def test_priorities_generated_ahead_are_the_same():
    """Micro-batches on canvases with different numbers of anchors and boxes, in a run that continues at step 40 and later at
    another step."""
    source = priorities(accumulate_steps=2)
    for step, sizes in [(40, (50, 20, 4)), (41, (50, 20, 4)), (42, (30, 20, 4)), (43, (30, 20, 4)), (44, (30, 25, 4)),
                        (45, (30, 25, 7)), (9, (30, 25, 7)), (10, (30, 25, 7))]:
        for number in (0, 1):
            found, expected = (each.draw(step, *sizes, number) for each in (source, priorities(accumulate_steps=2)))
            for rows, at_once in zip(found, expected):
                np.testing.assert_array_equal(rows.asnumpy(), at_once.asnumpy())


def test_the_thread_ends_with_its_owner():
    before = set(threading.enumerate())
    source = priorities()
    draw(source, 0)
    [thread] = set(threading.enumerate()) - before
    del source
    gc.collect()
    thread.join(timeout=10)
    assert not thread.is_alive()
