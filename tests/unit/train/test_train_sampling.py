"""src/train/sampling.py: the random numbers of a step."""
import gc
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from src.train import sampling
from src.train.sampling import SamplingPriorities


def priorities(seed=5, random_anchors=True, random_rois=True, add_boxes=True, batch_size=3, rank=0, accumulate_steps=1):
    return SamplingPriorities(SimpleNamespace(
        seed=seed, batch_size=batch_size, accumulate_steps=accumulate_steps,
        rpn_head=SimpleNamespace(rpn_label_assignment=SimpleNamespace(use_random=random_anchors)),
        bbox_head=SimpleNamespace(bbox_assigner=SimpleNamespace(use_random=random_rois), add_gt_as_proposals=add_boxes),
    ), rank=rank)


def draw(source, step=0, padded_boxes=4, micro_batch=0):
    return tuple(tensor.asnumpy() for tensor in source.draw(step, 50, 20, padded_boxes, micro_batch))


@pytest.mark.parametrize(("add_boxes", "length"), [(True, 24), (False, 20)])
def test_rows_are_different_permutations(add_boxes, length):
    anchors, rois = draw(priorities(add_boxes=add_boxes))
    assert (anchors.shape, rois.shape) == ((3, 50), (3, length))
    assert anchors.dtype == rois.dtype == np.float32
    for rows in (anchors, rois):
        np.testing.assert_array_equal(np.sort(rows, 1), np.tile(np.arange(rows.shape[1]), (3, 1)))
        assert len({tuple(row) for row in rows}) == 3


def test_priorities_depend_on_seed_and_step():
    first = draw(priorities(), step=7)
    for other in (draw(priorities(), step=8), draw(priorities(seed=6), step=7)):
        assert not any(np.array_equal(rows, own) for rows, own in zip(other, first))


def test_all_priorities_are_equally_likely():
    source = priorities()
    first = np.array([draw(source, step)[1][:, 0] for step in range(800)]).reshape(-1)
    counts = np.bincount(first.astype(int), minlength=24)
    # 2400 samples of 24 values: five standard deviations.
    assert np.abs(counts - 100).max() < 5 * np.sqrt(100 * 23 / 24)


@pytest.mark.parametrize("random_anchors", [True, False])
def test_without_random_the_first_have_the_highest_priority(random_anchors):
    anchors, rois = draw(priorities(random_anchors=random_anchors, random_rois=not random_anchors))
    for rows, random in ((anchors, random_anchors), (rois, not random_anchors)):
        falling = np.tile(np.arange(rows.shape[1])[::-1], (3, 1))
        assert np.array_equal(rows, falling) != random


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


def test_a_thread_generates_the_next_step(monkeypatch):
    source, names = priorities(accumulate_steps=2), []
    generate = source._draw
    monkeypatch.setattr(source, "_draw", lambda *args: (names.append(threading.current_thread().name), generate(*args))[1])
    for step in range(3):
        for number in (0, 1):
            draw(source, step, micro_batch=number)
    source._thread.shutdown()
    # Two micro-batches of the first step, then the two micro-batches that follow each of three steps.
    assert names.count("MainThread") == 2 and names.count("sampling_0") == 6


def test_an_error_in_the_thread_is_raised_in_the_next_step(monkeypatch):
    source = priorities()
    draw(source, 0)
    source._thread.submit(int).result()  # step 1 has been sampled
    monkeypatch.setattr(sampling, "_permutations", lambda *args: 1 / 0)
    draw(source, 1)
    source._thread.submit(int).result()
    monkeypatch.undo()
    with pytest.raises(ZeroDivisionError):
        draw(source, 2)


def test_the_thread_ends_with_its_owner():
    before = set(threading.enumerate())
    source = priorities()
    draw(source, 0)
    [thread] = set(threading.enumerate()) - before
    del source
    gc.collect()
    thread.join(timeout=10)
    assert not thread.is_alive()
