"""ScaleJitter: random sizes, crops, boxes compared with masks, and torchvision's sizes."""
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from src.dataset.resize import Scaling, fitted_size, resize, scale_jitter, scaling_of
from src.dataset.sample import Sample
from src.dataset.transforms import apply
from tests.helpers.drawn_boxes import check_extents, draw_sample

CANVAS = (96, 128)


def rng_of(*seed):
    return np.random.default_rng(seed)


def blank(canvas=CANVAS):
    return np.full((*canvas, 3), 77, np.uint8)


def jitter(sample, seed, canvas=CANVAS, shortest=(40, 200), sampling="range", longest=None, min_area=0.5):
    place = blank(canvas)
    return scale_jitter(sample, rng_of(1, seed), place, list(shortest), sampling, longest, min_area)


def image_of(height, width, boxes=((0, 0, 10, 10),)):
    return Sample(np.zeros((height, width, 3), np.uint8), np.float32(boxes), np.arange(len(boxes), dtype=np.int32))


@pytest.mark.parametrize("transform", ["Resize", "ScaleJitter"])
def test_boxes_keep_to_their_drawn_masks(transform):
    cut = 0
    for seed in range(2000):
        sample = draw_sample(rng_of(seed), whole=True)
        before = sample.boxes.copy()
        if transform == "Resize":
            found = resize(sample, blank(), Scaling(60 + seed % 50, 120))
        else:
            found = jitter(sample, seed, shortest=(20, 160))
        assert found.image.shape[0] <= CANVAS[0] and found.image.shape[1] <= CANVAS[1]
        # Scaling blurs the mask between two pixels of the file: the box ends at half of the value.
        check_extents(found, level=128)
        np.testing.assert_array_equal(sample.boxes, before)
        cut += len(found.boxes) < len(before)
    assert (cut > 100) == (transform == "ScaleJitter")


@pytest.mark.parametrize(("sampling", "wanted"), [("range", set(range(30, 51))), ("list", {30, 40, 50})])
def test_the_shortest_side_is_drawn_evenly(sampling, wanted):
    sample, draws = image_of(60, 90), 4200
    sides = Counter(jitter(sample, seed, shortest=(30, 40, 50), sampling=sampling).image.shape[0] for seed in range(draws))
    # 30 / 60 of 60 rows is exact. The remaining sizes are exact after rounding down.
    assert sum(sides.values()) == draws and set(sides) <= wanted | {side - 1 for side in wanted}
    counts = [sides[side] + (sides[side - 1] if side - 1 not in wanted else 0) for side in sorted(wanted)]
    expected = draws / len(wanted)
    assert np.abs(np.array(counts) - expected).max() < 5 * np.sqrt(expected)


def test_longest_sets_a_limit():
    assert jitter(image_of(50, 100), 0, shortest=(60, 60)).image.shape[:2] == (60, 120)
    assert jitter(image_of(50, 100), 0, shortest=(60, 60), longest=90).image.shape[:2] == (45, 90)


def test_what_is_larger_than_the_canvas_is_cut_at_a_place_that_is_drawn():
    pixels = np.arange(100, dtype=np.uint8)
    sample = image_of(100, 100)._replace(image=np.stack([np.tile(pixels[:, None], 100), np.tile(pixels, (100, 1)),
                                                         np.zeros((100, 100), np.uint8)], axis=2))
    corners = []
    for seed in range(300):
        found = jitter(sample, seed, canvas=(64, 160), shortest=(100, 100))  # no scaling
        assert found.image.shape == (64, 100, 3)
        top, left = found.image[0, 0, :2]
        np.testing.assert_array_equal(found.image, sample.image[top:top + 64, left:left + 100])
        if len(found.boxes):
            assert top <= 5  # half of the box
            np.testing.assert_array_equal(found.boxes, [[0, 0, 10, 10 - top]])
        corners.append((int(top), int(left)))
    # A window without a box is sampled again: most windows start where half of the box is inside.
    tops = Counter(top for top, _ in corners)
    assert min(tops) == 0 and max(tops) == 36 and sum(tops[top] for top in range(6)) > 200
    assert {left for _, left in corners} == {0}


def test_a_window_on_nothing_is_drawn_ten_times():
    """The chance of a window with half of the box is 6 of 37. With ten windows, the chance that one has it is 0.84."""
    sample = image_of(100, 100)
    kept = sum(len(jitter(sample, seed, canvas=(64, 160), shortest=(100, 100)).boxes) for seed in range(1000))
    chance = 1 - (31 / 37) ** 10
    assert abs(kept / 1000 - chance) < 5 * np.sqrt(chance * (1 - chance) / 1000)


def test_the_scale_is_that_of_the_image_and_not_of_the_window():
    found = jitter(image_of(50, 100), 0, canvas=(64, 64), shortest=(100, 100))
    np.testing.assert_array_equal(found.scale, [2, 2])
    assert found.image.shape == (64, 64, 3)


def test_in_a_list_it_stands_in_the_place_of_resize():
    steps = [{"ScaleJitter": {"shortest": [30, 50], "sampling": "list", "longest": 70, "min_area": 0.5}}]
    assert scaling_of(steps) == Scaling(50, 70)
    canvas = blank()
    sample = image_of(60, 80)._replace(image=np.full((60, 80, 3), 5, np.uint8))
    valid, found = apply(steps, sample, rng_of(3), canvas)
    height, width = valid.astype(int)
    assert (height, width) in {(30, 40), (50, 66)} and found.image.shape[:2] == (height, width)
    assert (canvas[:height, :width] == 5).all() and canvas.sum() == 5 * 3 * height * width


def test_the_same_generator_gives_the_same_sample():
    sample = draw_sample(rng_of(5), whole=True)
    one, other = jitter(sample, 9), jitter(sample, 9)
    assert all(np.array_equal(*columns) for columns in zip(one, other))
    assert any(jitter(sample, seed).image.shape != one.image.shape for seed in range(5))


def torchvision_sizes():
    """Rows (height, width, shortest, longest, new height, new width) from torchvision's transform."""
    return json.loads(Path(__file__).with_name("torchvision_sizes.json").read_text())["rows"]


def test_sizes_are_torchvisions():
    rows = torchvision_sizes()
    wrong = []
    for *size, shortest, longest, height, width in rows:
        canvas = (shortest, longest) if size[0] <= size[1] else (longest, shortest)
        if fitted_size(tuple(size), canvas, Scaling(shortest, longest)) != (height, width):
            wrong.append((size, shortest, longest, height, width))
    assert len(rows) == 1000 and not wrong


def interpolated(image, height, width):
    """Bilinear interpolation between pixel centres without antialiasing, as in torch's interpolate(align_corners=False)."""
    def places(new, old):
        place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, None)
        first = np.minimum(place.astype(int), old - 1)
        return first, np.minimum(first + 1, old - 1), place - first

    (top, bottom, y), (left, right, x) = places(height, image.shape[0]), places(width, image.shape[1])
    y, x = y[:, None, None], x[None, :, None]
    image = image.astype(np.float64)
    return ((image[top][:, left] * (1 - x) + image[top][:, right] * x) * (1 - y)
            + (image[bottom][:, left] * (1 - x) + image[bottom][:, right] * x) * y)


@pytest.mark.parametrize("scaling", [Scaling(41, 97), Scaling(70, 96), Scaling(25, 40)])
def test_pixels_are_within_one_grey_level_of_torchvisions(scaling):
    """Noise is scaled down and up, which is harder than any photograph."""
    image = rng_of(4).integers(0, 256, (47, 61, 3), dtype=np.uint8)
    found = resize(image_of(47, 61)._replace(image=image), blank(), scaling).image
    assert np.abs(found - interpolated(image, *found.shape[:2])).max() <= 1
