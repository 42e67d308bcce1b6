"""src/models/matcher.py: the matched box of each candidate, and the random sample."""
import numpy as np
import pytest
from mindspore import Tensor

from src.models import matcher
from src.models.matcher import Matcher, sample_masks, subsample
from tests.helpers.ascend_operators import top_k_of_910a

A, B = [0, 0, 10, 10], [20, 0, 30, 10]


# Candidates and boxes of an image, the mask of the boxes, and for each candidate the overlap, the index (None: any) and is_best.
@pytest.mark.parametrize(("candidates", "boxes", "mask", "overlap", "index", "best"), [
    # No candidate overlaps the third box, and overlap 0 is not a match.
    ([[0, 0, 10, 8], [0, 0, 10, 5], [20, 0, 30, 2], [90, 0, 99, 9]], [A, B, [0, 50, 10, 60]], [True] * 3,
     [0.8, 0.5, 0.2, 0], [0, 0, 1, None], [True, False, True, False]),
    ([A, B, [21, 0, 31, 10]], [A, B], [False, True], [0, 1, 90 / 110], [None, 1, 1], [False, True, False]),
    ([A, B], [A, B], [False, False], [0, 0], [None, None], [False, False]),
    # Equally good candidates are all best.
    ([A, [5, 0, 15, 10], A], [[2.5, 0, 12.5, 10]], [True], [0.6] * 3, [0] * 3, [True] * 3),
    # The only candidate near both boxes overlaps the first one more, but is the best candidate of the second one.
    ([A], [[0, 0, 10, 9], [0, 9, 10, 19]], [True, True], [0.9], [0], [True])])
def test_matches(computed, candidates, boxes, mask, overlap, index, best):
    """The second image has the same boxes, all masked."""
    found = computed(Matcher(), np.float32([candidates]), np.float32([boxes] * 2), np.array([mask, [False] * len(mask)]))
    np.testing.assert_allclose(found[0], [overlap, np.zeros(len(overlap))], rtol=1e-6)
    assert [own if wanted is not None else None for own, wanted in zip(found[1][0].tolist(), index)] == index
    np.testing.assert_array_equal(found[2], [best, [False] * len(best)])


def sample_by_sorting(positive, negative, priority, number, max_positive):
    """Return the result of `subsample` for one image, by sorting in NumPy; unused slots are -1."""
    positives, negatives = (np.flatnonzero(mask) for mask in (positive, negative))
    positives, negatives = (found[np.argsort(-priority[found])] for found in (positives, negatives))
    positives = positives[:min(max_positive, number)]
    chosen = np.concatenate((positives, negatives[:number - len(positives)]))
    index = np.full(min(number, len(priority)), -1)
    index[:len(chosen)] = chosen
    return index, np.arange(len(index)) < len(positives), index >= 0


# Candidates, shares of positives and negatives, number of samples, maximum of positives. 768x1280 has 245,520 anchors.
SAMPLES = [(245_520, 0.002, 0.99, 256, 128), (245_520, 0.0001, 0.9, 256, 128), (245_520, 0, 1, 256, 128),
           (245_520, 1, 0, 256, 128), (245_520, 0.5, 0.5, 256, 256), (245_520, 0.001, 0.0003, 512, 128),
           (2128, 0.3, 0.5, 512, 128), (2049, 0.9, 0.1, 512, 2049), (100, 0.3, 0.5, 256, 128), (100, 0.3, 0.2, 50, 0),
           (50, 0, 0, 8, 4), (30_000, 0.1, 0.8, 20_000, 10_000)]


@pytest.mark.parametrize("order", [None, "rising", "falling", np.random.default_rng(0)], ids=["CPU", "rising", "falling", "any"])
@pytest.mark.parametrize("case", SAMPLES, ids=str)
def test_the_sample_is_that_of_sorting_whatever_top_k_rounds(monkeypatch, case, order):
    candidates, positives, negatives, number, max_positive = case
    rng = np.random.default_rng(candidates)
    chance = rng.random((2, candidates))
    positive, negative = chance < positives, (chance >= positives) & (chance < positives + negatives)
    priority = rng.permuted(np.tile(np.arange(candidates, dtype=np.float32), (2, 1)), axis=1)
    if order is not None:
        monkeypatch.setattr(matcher, "TOP_K", top_k_of_910a(order))
    arguments = *map(Tensor, (positive, negative, priority)), number, max_positive
    index, is_positive, is_sampled = (output.asnumpy() for output in subsample(*arguments))
    masks = [output.asnumpy() for output in sample_masks(*arguments)]
    for image in range(2):
        expected = sample_by_sorting(positive[image], negative[image], priority[image], number, max_positive)
        for mask, chosen in zip(masks, expected[1:]):
            np.testing.assert_array_equal(np.flatnonzero(mask[image]), np.sort(expected[0][chosen]))
        if number > matcher.BASE:  # in the order of TopK
            assert set(index[image, is_positive[image]]) == set(expected[0][expected[1]])
            assert set(index[image, is_sampled[image]]) == set(expected[0][expected[2]])
            continue
        np.testing.assert_array_equal(is_positive[image], expected[1])
        np.testing.assert_array_equal(is_sampled[image], expected[2])
        np.testing.assert_array_equal(index[image], np.where(expected[2], expected[0], 0))
