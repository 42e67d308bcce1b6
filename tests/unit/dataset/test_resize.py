"""Canvas sizes, Resize, ScaleJitter and padding: pixels compared with OpenCV and torchvision, boxes with drawn masks."""
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from src.dataset.resize import Scaling, choose_canvas, fitted_size, resize, scale_jitter, scaling_of
from src.dataset.transforms import apply, pad_boxes
from tests.helpers.drawn_boxes import check_extents, draw_sample, is_near, rng_of, sample_of

CANVAS = (96, 128)
WIDE, UPRIGHT, SQUARE = (64, 96), (96, 64), (80, 80)


def image_of(height, width, boxes=((0, 0, 10, 10),)):
    return sample_of(np.zeros((height, width, 3), np.uint8), boxes)


def blank(height=CANVAS[0], width=CANVAS[1]):
    """A canvas with old content, which must be overwritten."""
    return np.full((height, width, 3), 77, dtype=np.uint8)


def jitter(sample, seed, canvas=CANVAS, shortest=(40, 200), sampling="range", longest=None, factors=None,
           min_area=0.5):
    return scale_jitter(sample, rng_of(1, seed), blank(*canvas), list(shortest), sampling, longest, factors, min_area)


@pytest.mark.parametrize(("size", "canvases", "scaling", "number"), [
    ((480, 640), (WIDE, UPRIGHT), Scaling(), 0), ((640, 480), (WIDE, UPRIGHT), Scaling(), 1),
    ((500, 500), (WIDE, UPRIGHT), Scaling(), 0), ((500, 500), (WIDE, UPRIGHT, SQUARE), Scaling(), 2),
    ((640, 480), (SQUARE, UPRIGHT), Scaling(), 1), ((10, 1000), (UPRIGHT, WIDE), Scaling(), 1),
    # Both canvases hold the image with shortest side 60, and the square canvas needs no downscaling.
    ((300, 300), (SQUARE, WIDE), Scaling(60, 80), 0), ((300, 400), (UPRIGHT, WIDE), Scaling(60, 80), 1)])
def test_an_image_uses_the_canvas_on_which_it_is_largest(size, canvases, scaling, number):
    assert choose_canvas(size, canvases, scaling) == number


@pytest.mark.parametrize(("size", "canvas", "scaling", "fitted"), [
    ((300, 600), (800, 1344), Scaling(800), (672, 1344)),           # no longest side: the canvas is the limit
    ((300, 400), (768, 1280), Scaling(800, 1333), (768, 1024)),
    ((300, 400), (768, 1280), Scaling(100, 1333), (100, 133))])     # smaller than the canvas permits
def test_shortest_and_longest_side(size, canvas, scaling, fitted):
    assert fitted_size(size, canvas, scaling) == fitted


@pytest.mark.parametrize("shrink", ["area", "linear"])
def test_exact_factor_is_cv2_resize_with_fx_and_fy(shrink):
    """Halves of a pixel are rounded to even. Images whose smaller side has no pixel use the ratio per axis, and are skipped."""
    rng = rng_of(7)
    sizes = [(319, 450), (615, 1000), (1000, 615), (768, 1025), (768, 1024), (192, 256), (383, 512), (384, 511), (384, 512)]
    sizes += [tuple(map(int, rng.integers(1, 900, 2))) for _ in range(60)]
    for size in sizes:
        factor = min(384 / size[0], 512 / size[1])
        if factor * min(size) <= 0.5:
            continue
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        boxes = np.array([[0, 0, size[1], size[0]], [0, 0, size[1] / 2, size[0] / 2]], np.float32)
        canvas = blank(384, 512)
        valid, scaled = apply([{"Resize": {"shrink": shrink, "exact_factor": True}}], sample_of(image, boxes), rng, canvas)
        interpolation = cv2.INTER_AREA if factor < 1 and shrink == "area" else cv2.INTER_LINEAR
        wanted = cv2.resize(image, None, fx=factor, fy=factor, interpolation=interpolation)
        height, width = wanted.shape[:2]
        np.testing.assert_array_equal(valid, (height, width))
        np.testing.assert_array_equal(canvas[:height, :width], wanted, f"{size}")
        assert not canvas[height:].any() and not canvas[:, width:].any()
        np.testing.assert_array_equal(scaled.scale, np.float32([factor, factor]))
        ends = np.minimum(boxes * np.float32(factor), np.float32([width, height, width, height]))
        np.testing.assert_allclose(scaled.boxes, ends, rtol=1e-6)
    line = resize(sample_of(rng.integers(0, 256, (1, 2000, 3), dtype=np.uint8), []), blank(384, 512), Scaling(exact_factor=True))
    assert line.image.shape == (1, 512, 3)
    np.testing.assert_allclose(line.scale, [1, 0.256])


@pytest.mark.parametrize(("old", "target", "new"), [
    ((30, 40), (64, 60), (45, 60)), ((30, 40), (64, 200), (64, 85)), ((30, 40), (30, 50), (30, 40)),
    ((90, 40), (45, 60), (45, 20)), ((1000, 3), (10, 10), (10, 1)), ((33, 47), (20, 20), (14, 20))])
def test_apply_writes_the_whole_canvas_and_returns_size_boxes_and_scale(old, target, new):
    image, canvas = rng_of(3).integers(0, 256, (*old, 3), dtype=np.uint8), blank(*target)
    boxes = np.float32([[1, 2, 3, 30], [0, 0, old[1], old[0]]])
    valid, sample = apply([{"Resize": {}}, {"NormalizeImage": {}}], sample_of(image, boxes), rng_of(0), canvas)
    height, width = new
    wanted = np.zeros((*target, 3), dtype=np.uint8)
    wanted[:height, :width] = cv2.resize(image, (width, height))
    np.testing.assert_array_equal(canvas, wanted)
    np.testing.assert_array_equal(valid, new)
    np.testing.assert_allclose(sample.scale, [height / old[0], width / old[1]], rtol=1e-6)
    np.testing.assert_allclose(sample.boxes, boxes * sample.scale[[1, 0, 1, 0]], rtol=1e-6)
    assert sample.labels.tolist() == [0, 1] and valid.dtype == sample.scale.dtype == sample.boxes.dtype == np.float32


def test_padding():
    boxes, labels, mask = pad_boxes(np.float32([[1, 2, 4, 5], [0, 0, 9, 6]]), np.array([3, 0], dtype=np.int32), 4, -1)
    np.testing.assert_array_equal(boxes, [[1, 2, 4, 5], [0, 0, 9, 6], [0] * 4, [0] * 4])
    np.testing.assert_array_equal(labels, [3, 0, -1, -1])
    np.testing.assert_array_equal(mask, [True, True, False, False])
    assert boxes.dtype == np.float32 and labels.dtype == np.int32 and mask.dtype == bool


@pytest.mark.parametrize("transform", ["Resize", "ScaleJitter"])
def test_boxes_keep_to_their_drawn_masks(transform):
    cut = 0
    for seed in range(2000):
        sample = draw_sample(rng_of(seed), whole=True)
        before = sample.boxes.copy()
        found = (resize(sample, blank(), Scaling(60 + seed % 50, 120)) if transform == "Resize" else
                 jitter(sample, seed, shortest=(20, 160)))
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


@pytest.mark.parametrize("size", [(60, 90), (90, 30), (64, 64)])
def test_factors_are_torchvisions_large_scale_jitter(size):
    """torchvision's ScaleJitter: r = min(side / height, side / width) * uniform(0.1, 2), and sides rounded down after * r. A box
    that covers the image covers every window, and with min_area 0 every box with a pixel in its window stays."""
    side, draws, areas = 64, 2000, []
    sample, fit = image_of(*size, boxes=[(0, 0, size[1], size[0])]), min(side / size[0], side / size[1])
    for seed in range(draws):
        found = jitter(sample, seed, canvas=(side, side), factors=[0.1, 2.0], min_area=0.0)
        factor = rng_of(1, seed).uniform(0.1, 2.0) * fit
        scaled = [int(length * factor) for length in size]
        assert found.size == tuple(min(length, side) for length in scaled)
        np.testing.assert_allclose(found.scale, np.divide(scaled, size), rtol=1e-6)
        np.testing.assert_allclose(found.boxes, [[0, 0, found.size[1], found.size[0]]], rtol=1e-6)
        areas.append(max(scaled) / side)
    assert is_near(sum(area < 1.05 for area in areas), draws, (1.05 - 0.1) / 1.9) and max(areas) > 1.9 and min(areas) < 0.13
    assert scaling_of([{"ScaleJitter": {"factors": [0.1, 2.0]}}]) == Scaling()


def test_what_is_larger_than_the_canvas_is_cut_at_a_place_that_is_drawn():
    pixels = np.arange(100, dtype=np.uint8)
    sample = image_of(100, 100)._replace(image=np.stack([np.tile(pixels[:, None], 100), np.tile(pixels, (100, 1)),
                                                         np.zeros((100, 100), np.uint8)], axis=2))
    corners, kept = [], 0
    for seed in range(1000):
        found = jitter(sample, seed, canvas=(64, 160), shortest=(100, 100))  # no scaling
        assert found.image.shape == (64, 100, 3)
        top, left = found.image[0, 0, :2]
        np.testing.assert_array_equal(found.image, sample.image[top:top + 64, left:left + 100])
        if len(found.boxes):
            assert top <= 5  # half of the box
            np.testing.assert_array_equal(found.boxes, [[0, 0, 10, 10 - top]])
            kept += 1
        corners.append((int(top), int(left)))
    assert {top for top, _ in corners} == set(range(37)) and {left for _, left in corners} == {0}
    # 6 of 37 windows have half of the box. A window without it is sampled again, at most ten times.
    assert is_near(kept, 1000, 1 - (31 / 37) ** 10)


def test_the_scale_is_that_of_the_image_and_not_of_the_window():
    assert jitter(image_of(50, 100), 0, shortest=(60, 60), longest=90).size == (45, 90)
    found = jitter(image_of(50, 100), 0, canvas=(64, 64), shortest=(100, 100))
    assert found.scale.tolist() == [2, 2] and found.size == (64, 64)


def test_in_a_list_it_stands_in_the_place_of_resize():
    steps = [{"ScaleJitter": {"shortest": [30, 50], "sampling": "list", "longest": 70, "factors": None, "min_area": 0.5}}]
    assert scaling_of(steps) == Scaling(50, 70)
    canvas = blank()
    sample = image_of(60, 80)._replace(image=np.full((60, 80, 3), 5, np.uint8))
    valid, found = apply(steps, sample, rng_of(3), canvas)
    height, width = valid.astype(int)
    assert (height, width) in {(30, 40), (50, 66)} and found.image.shape[:2] == (height, width)
    assert (canvas[:height, :width] == 5).all() and canvas.sum() == 5 * 3 * height * width


def test_sizes_are_torchvisions():
    """Rows (height, width, shortest, longest, new height, new width) come from torchvision's transform."""
    rows = json.loads(Path(__file__).with_name("torchvision_sizes.json").read_text())["rows"]
    wrong = []
    for *size, shortest, longest, height, width in rows:
        canvas = (shortest, longest) if size[0] <= size[1] else (longest, shortest)
        if fitted_size(tuple(size), canvas, Scaling(shortest, longest)) != (height, width):
            wrong.append((size, shortest, longest, height, width))
    assert len(rows) == 1000 and not wrong


def interpolation(new, old):
    """Return the weights (new, old) of bilinear interpolation between pixel centres, as in torch's interpolate."""
    place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.clip(1 - np.abs(place[:, None] - np.arange(old)), 0, None)


@pytest.mark.parametrize("scaling", [Scaling(41, 97), Scaling(70, 96), Scaling(25, 40)])
def test_pixels_are_within_one_grey_level_of_torchvisions(scaling):
    """Noise is scaled down and up, which is harder than any photograph."""
    image = rng_of(4).integers(0, 256, (47, 61, 3), dtype=np.uint8)
    found = resize(image_of(47, 61)._replace(image=image), blank(), scaling).image
    wanted = np.einsum("yh,xw,hwc->yxc", interpolation(found.shape[0], 47), interpolation(found.shape[1], 61), image)
    assert np.abs(found - wanted).max() <= 1
