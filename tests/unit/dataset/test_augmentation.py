"""Random transforms: boxes compared with masks, pixels with formulas, frequencies with probabilities."""
import colorsys
from fractions import Fraction

import cv2
import numpy as np
import pytest

from src.dataset.transforms import AUGMENTATIONS, apply, photometric_distortion, random_crop, random_hsv
from tests.helpers.drawn_boxes import check_extents, draw_sample, is_near, rng_of, same, sample_of

GEOMETRIC = {"RandomFlip": {"prob": 0.5}, "RandomVerticalFlip": {"prob": 0.5}, "RandomRotate90": {"prob": 0.8},
             "RandomCrop": {"prob": 0.8, "min_scale": 0.3, "min_area": 0.5}}
LIMITS = {"brightness": 32, "contrast": 0.5, "saturation": 0.5, "hue": 18}


@pytest.fixture(scope="module")
def drawn():
    """2,000 samples; samples with even numbers have boxes on whole pixels."""
    return [draw_sample(rng_of(seed), whole=seed % 2 == 0) for seed in range(2000)]


@pytest.mark.parametrize("name", GEOMETRIC)
def test_boxes_keep_to_their_drawn_masks(drawn, name):
    transform, parameters = AUGMENTATIONS[name], GEOMETRIC[name]
    changed = 0
    for seed, sample in enumerate(drawn):
        before = sample.boxes.copy()
        found = transform(sample, rng_of(1, seed), **parameters)
        check_extents(found)
        assert name == "RandomCrop" or len(found.boxes) == len(before)
        assert np.array_equal(sample.boxes, before)
        changed += found is not sample
    assert changed > 800


def test_a_crop_drops_exactly_the_boxes_of_which_too_little_is_left(drawn):
    dropped = 0
    for seed, sample in enumerate(drawn[::2]):
        min_area = [0.0, 0.25, 0.5, 1.0][seed % 4]
        found = random_crop(sample, rng_of(1, seed), prob=1.0, min_scale=0.3, min_area=min_area)
        if found is sample:
            continue
        shares = [Fraction(int(np.count_nonzero(found.image[..., label])), int(np.count_nonzero(sample.image[..., label])))
                  for label in sample.labels]
        kept = [label for label, share in zip(sample.labels, shares) if share > 0 and share >= min_area]
        assert found.labels.tolist() == kept
        assert kept or not len(sample.labels)
        dropped += len(shares) - len(kept)
    assert dropped > 150


def test_the_sides_of_a_window_are_drawn_evenly_and_its_place_anywhere():
    image = np.arange(100 * 200 * 3).reshape(100, 200, 3)
    sample, rng = sample_of(image), rng_of(0)
    windows = [random_crop(sample, rng, prob=1.0, min_scale=0.5, min_area=0.5).image for _ in range(4000)]
    for axis, (side, pixels) in enumerate([(100, 600), (200, 3)]):
        sides = np.array([window.shape[axis] for window in windows])
        begins = np.array([int(window[0, 0, 0]) for window in windows]) // pixels % side
        assert sides.min() == side // 2 and sides.max() == side
        assert abs(sides.mean() - 0.75 * side) < 5 * side / 2 / np.sqrt(12 * 4000)
        ends = side - sides - begins
        assert begins.min() == ends.min() == 0
        assert abs((begins - ends).mean()) < 5 * (begins - ends).std() / np.sqrt(4000)
    correlation = np.corrcoef([window.shape[:2] for window in windows], rowvar=False)[0, 1]
    assert abs(correlation) < 5 / np.sqrt(4000)


def test_a_window_without_boxes_is_drawn_ten_times_before_the_image_stays_whole():
    """A box on the first pixel of a row of 64 stays if a window starts there, which has a chance of 1 in 65 - length."""
    sample = sample_of(np.zeros((1, 64, 3), np.uint8), [[0, 0, 1, 1]])
    chance_of = {length: 1 / (64 if length in (32, 64) else 32) for length in range(32, 65)}
    kept = sum(chance / (65 - length) for length, chance in chance_of.items())
    whole = (1 - kept) ** 10 + chance_of[64] * sum((1 - kept) ** tries for tries in range(10))
    rng = rng_of(0)
    results = [random_crop(sample, rng, prob=1.0, min_scale=0.5, min_area=0.5) for _ in range(3000)]
    assert all(len(found.boxes) == 1 for found in results)
    assert is_near(sum(found.image.shape[1] == 64 for found in results), 3000, whole)


@pytest.mark.parametrize(("name", "results"), [
    ("RandomFlip", [(np.s_[:, ::-1], [4, 0, 5, 2])]), ("RandomVerticalFlip", [(np.s_[::-1], [0, 1, 1, 3])]),
    ("RandomRotate90", [(-1, [1, 0, 3, 1]), (2, [4, 1, 5, 3]), (1, [0, 4, 2, 5])])])
def test_flips_and_turns_by_hand(name, results):
    """A box one pixel wide and two high, at the top left of an image of 3 x 5, moves with its pixels. Turns are drawn evenly."""
    image = np.arange(45, dtype=np.uint8).reshape(3, 5, 3)
    wanted = [(np.rot90(image, place) if isinstance(place, int) else image[place], box) for place, box in results]
    counts = [0] * len(wanted)
    for seed in range(3000):
        found = AUGMENTATIONS[name](sample_of(image, [[0, 0, 1, 2]]), rng_of(seed), prob=1.0)
        [which] = [i for i, (pixels, _) in enumerate(wanted) if np.array_equal(pixels, found.image)]
        assert found.boxes.tolist() == [wanted[which][1]] and found.boxes.dtype == np.float32
        counts[which] += 1
    assert counts == [3000] or all(is_near(count, 3000, 1 / 3) for count in counts), counts


@pytest.mark.parametrize("name", GEOMETRIC)
@pytest.mark.parametrize("prob", [0.0, 0.25, 1.0])
def test_transforms_keep_their_probability(name, prob):
    transform, parameters = AUGMENTATIONS[name], GEOMETRIC[name]
    sample, rng = sample_of(np.zeros((6, 10, 3), dtype=np.uint8)), rng_of(0)
    changed = sum(transform(sample, rng, **{**parameters, "prob": prob}) is not sample for _ in range(3000))
    assert changed == 3000 * prob if prob in (0, 1) else is_near(changed, 3000, prob)


def test_the_same_generator_gives_the_same_bits():
    for name, parameters in {**GEOMETRIC, "PhotometricDistortion": LIMITS}.items():
        results = [[AUGMENTATIONS[name](draw_sample(rng_of(seed)), rng_of(first, seed), **parameters) for seed in range(40)]
                   for first in (1, 1, 2)]
        assert all(map(same, results[0], results[1]))
        assert not all(map(same, results[0], results[2]))


def formula(pixel, brightness, contrast, saturation, hue, contrast_first):
    """Return the distortion of one pixel in floating point."""
    levels = np.clip(np.float64(pixel) + brightness, 0, 255)
    if contrast_first:
        levels = np.clip(levels * contrast, 0, 255)
    h, s, v = colorsys.rgb_to_hsv(*levels / 255)
    levels = 255 * np.array(colorsys.hsv_to_rgb((h + hue / 360) % 1, min(1, s * saturation), v))
    return levels if contrast_first else np.clip(levels * contrast, 0, 255)


def test_distortions_follow_the_formula():
    limits = {"brightness": 40, "contrast": 0.8, "saturation": 0.8, "hue": 90}
    image = rng_of(5).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    orders, errors = [], []
    for seed in range(300):
        rng = rng_of(seed)
        applied, drawn = rng.random(4) < 0.5, rng.uniform(-1, 1, 4)
        brightness, contrast, saturation, hue = np.where(applied, drawn * list(limits.values()), 0)
        found = photometric_distortion(sample_of(image), rng_of(seed), **limits).image
        by_order = [np.array([formula(pixel, brightness, 1 + contrast, 1 + saturation, hue, first)
                              for pixel in image.reshape(-1, 3)]).reshape(image.shape) for first in (True, False)]
        differences = [abs(wanted - found) for wanted in by_order]
        errors.append(min(differences, key=np.mean))
        if abs(by_order[0] - by_order[1]).mean() > 1:  # clipping after contrast makes the order visible
            orders.append(differences[0].mean() < differences[1].mean())
    # One of 180 hues is 8.5 levels wide, and contrast amplifies rounding errors.
    assert np.max(errors) < 14 and np.mean(errors) < 1
    assert len(orders) > 10 and 0.2 < np.mean(orders) < 0.8


@pytest.mark.parametrize("gains", [(0.0, 0.0, 0.0), (0.1, 0.5, 0.4), (1.0, 1.0, 1.0)])
def test_hsv_multiplies_each_channel_by_its_factor(gains):
    image = rng_of(1).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for seed in range(8):
        scaled = cv2.cvtColor(image, cv2.COLOR_RGB2HSV) * (1 + rng_of(seed).uniform(-1, 1, 3) * gains)
        scaled[..., 0] %= 180
        wanted = cv2.cvtColor(np.minimum(scaled, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
        np.testing.assert_array_equal(random_hsv(sample_of(image), rng_of(seed), *gains).image, wanted)


def test_a_list_of_all_of_them_ends_on_the_canvas():
    steps = [{"RandomCrop": {"prob": 1, "min_scale": 0.3, "min_area": 0.5}}, {"RandomRotate90": {"prob": 1}},
             {"PhotometricDistortion": LIMITS}, {"RandomVerticalFlip": {"prob": 1}}, {"Resize": {}}, {"RandomFlip": {"prob": 1}}]
    for seed in range(50):
        canvas = np.full((64, 96, 3), 77, dtype=np.uint8)
        (height, width), sample = apply(steps, draw_sample(rng_of(seed)), rng_of(1, seed), canvas)
        assert not canvas[int(height):].any() and not canvas[:, int(width):].any()
        assert (sample.boxes >= 0).all() and (sample.boxes <= [width, height, width, height]).all()
