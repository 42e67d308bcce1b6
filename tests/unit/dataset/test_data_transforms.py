import cv2
import numpy as np
import pytest

from src.dataset.augmentation import random_flip, random_hsv
from src.dataset.resize import Scaling, resize
from src.dataset.sample import Sample
from src.dataset.transforms import apply, pad_boxes

BOXES = np.array([[1, 2, 4, 5], [0, 0, 10, 6]], dtype=np.float32)
LABELS = np.array([1, 0], dtype=np.int32)


def sample_of(image, boxes=BOXES):
    return Sample(image, np.float32(boxes).reshape(-1, 4), LABELS[:len(boxes)])


def hsv(image, rng, *gains):
    """Return `image` after random_hsv."""
    return random_hsv(sample_of(image), rng, *gains).image


def blank(height, width):
    """A canvas with old content, which must be overwritten."""
    return np.full((height, width, 3), 77, dtype=np.uint8)


def test_flip_mirrors_image_and_boxes():
    image = np.arange(6 * 10 * 3, dtype=np.uint8).reshape(6, 10, 3)
    flipped = random_flip(sample_of(image), np.random.default_rng(0), prob=1.0)
    np.testing.assert_array_equal(flipped.image, image[:, ::-1])
    np.testing.assert_array_equal(flipped.boxes, [[6, 2, 9, 5], [0, 0, 10, 6]])
    np.testing.assert_array_equal(BOXES[0], [1, 2, 4, 5])  # the record's boxes do not change


def test_flip_keeps_its_probability():
    sample = sample_of(np.zeros((6, 10, 3), dtype=np.uint8))
    rng = np.random.default_rng(0)
    flips = sum(random_flip(sample, rng, prob=0.25) is not sample for _ in range(4000))
    assert abs(flips / 4000 - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 4000)
    assert random_flip(sample, rng, prob=0.0) is sample


def test_hsv_without_gains_changes_no_more_than_the_conversion_does():
    image = np.random.default_rng(1).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    found = hsv(image, np.random.default_rng(0), 0.0, 0.0, 0.0)
    difference = np.abs(found.astype(int) - image)
    one_level_of_hue = 255 * 6 / 180  # OpenCV has 180 levels of hue
    assert difference.max() <= one_level_of_hue + 1 and difference.mean() < 2


@pytest.mark.parametrize("gains", [(0.1, 0.5, 0.4), (1.0, 1.0, 1.0)])
def test_hsv_multiplies_each_channel_by_its_drawn_factor(gains):
    image = np.random.default_rng(1).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for seed in range(8):
        scaled = cv2.cvtColor(image, cv2.COLOR_RGB2HSV) * (1 + np.random.default_rng(seed).uniform(-1, 1, 3) * gains)
        scaled[..., 0] %= 180
        wanted = cv2.cvtColor(np.minimum(scaled, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
        np.testing.assert_array_equal(hsv(image, np.random.default_rng(seed), *gains), wanted)


def test_value_of_a_grey_image_is_scaled_within_its_gain():
    image = np.full((2, 2, 3), 100, dtype=np.uint8)
    levels = [int(hsv(image, np.random.default_rng(seed), 0.5, 0.5, 0.3)[0, 0, 0]) for seed in range(300)]
    assert 70 <= min(levels) < 73 and 127 < max(levels) <= 130


def test_hue_of_a_red_image_moves_to_both_sides():
    image = np.full((2, 2, 3), (200, 0, 40), dtype=np.uint8)  # hue 348 degrees
    moved = np.array([hsv(image, np.random.default_rng(seed), 0.2, 0.0, 0.0)[0, 0] for seed in range(50)])
    assert (moved.max(axis=1) == 200).all() and (moved.min(axis=1) == 0).all()
    assert (moved[:, 1] > 0).any() and (moved[:, 2] > 60).any()


@pytest.mark.parametrize(("old", "target", "new"), [
    ((30, 40), (60, 100), (60, 80)), ((30, 40), (90, 60), (45, 60)), ((100, 200), (50, 50), (25, 50)),
    ((480, 640), (768, 1280), (768, 1024)), ((1000, 3), (10, 10), (10, 1)), ((33, 47), (20, 20), (14, 20))])
def test_resize_fits_the_canvas_and_boxes_follow_the_real_ratios(old, target, new):
    boxes = np.array([[0, 0, old[1], old[0]], [1, 2, 3, 30]], dtype=np.float32)
    scaled = resize(sample_of(np.zeros((*old, 3), dtype=np.uint8), boxes), blank(*target))
    assert scaled.image.shape == (*new, 3)
    sy, sx = new[0] / old[0], new[1] / old[1]
    np.testing.assert_allclose(scaled.scale, [sy, sx], rtol=1e-6)
    np.testing.assert_allclose(scaled.boxes, [[0, 0, new[1], new[0]], [sx, 2 * sy, 3 * sx, 30 * sy]], rtol=1e-6)
    assert scaled.boxes.dtype == scaled.scale.dtype == np.float32


def test_resize_is_bilinear_between_pixel_centres():
    image = np.repeat(np.array([[0, 100]], dtype=np.uint8)[..., None], 3, axis=2)
    scaled = resize(sample_of(image, []), blank(2, 4))
    np.testing.assert_array_equal(scaled.image[0, :, 0], [0, 25, 75, 100])


def test_shrinking_by_area_takes_the_mean_of_the_pixels():
    image = np.random.default_rng(5).integers(0, 256, (12, 24, 3), dtype=np.uint8)
    sample = sample_of(image, [[3, 6, 24, 12]])
    scaled = resize(sample, blank(4, 10), Scaling(shrink="area"))
    means = image.reshape(4, 3, 8, 3, 3).mean((1, 3))
    np.testing.assert_allclose(scaled.image, means, rtol=0, atol=0.5)
    np.testing.assert_array_equal(scaled.boxes, [[1, 2, 8, 4]])
    # With factor 1/3, samples are at pixel centres.
    np.testing.assert_array_equal(resize(sample, blank(4, 10)).image, image[1::3, 1::3])


@pytest.mark.parametrize("shrink", ["area", "linear"])
def test_exact_factor_is_cv2_resize_with_fx_and_fy(shrink):
    """Halves of a pixel are rounded to even. Images whose smaller side has no pixel use the ratio per axis, and are skipped."""
    rng = np.random.default_rng(7)
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


def test_the_list_says_how_images_become_smaller_and_they_are_enlarged_linearly():
    image = np.random.default_rng(6).integers(0, 256, (30, 42, 3), dtype=np.uint8)
    smaller, larger, linear = blank(10, 14), blank(45, 63), blank(45, 63)
    for canvas, shrink in ((smaller, "area"), (larger, "area"), (linear, "linear")):
        apply([{"Resize": {"shrink": shrink}}], sample_of(image), np.random.default_rng(0), canvas)
    np.testing.assert_allclose(smaller, image.reshape(10, 3, 14, 3, 3).mean((1, 3)), rtol=0, atol=0.5)
    np.testing.assert_array_equal(larger, linear)


def test_apply_pads_at_the_bottom_right_and_reports_what_it_did():
    image = np.full((30, 40, 3), 9, dtype=np.uint8)
    canvas = blank(64, 60)
    valid, sample = apply([{"Resize": {"keep_ratio": True}}, {"NormalizeImage": {}}], sample_of(image),
                          np.random.default_rng(0), canvas)
    assert (canvas[:45] == 9).all() and (canvas[45:] == 0).all()
    np.testing.assert_array_equal(valid, [45, 60])
    np.testing.assert_array_equal(sample.scale, [1.5, 1.5])
    np.testing.assert_array_equal(sample.boxes, BOXES * 1.5)
    np.testing.assert_array_equal(sample.labels, LABELS)
    assert valid.dtype == sample.scale.dtype == sample.boxes.dtype == np.float32


@pytest.mark.parametrize(("old", "target"), [((30, 40), (64, 60)), ((30, 40), (64, 200)), ((30, 40), (30, 50)),
                                             ((90, 40), (45, 60))])
def test_apply_writes_the_whole_canvas(old, target):
    image = np.random.default_rng(3).integers(0, 256, (*old, 3), dtype=np.uint8)
    canvas = blank(*target)
    (height, width), _ = apply([{"Resize": {}}], sample_of(image), np.random.default_rng(0), canvas)
    wanted = np.zeros((*target, 3), dtype=np.uint8)
    wanted[:int(height), :int(width)] = cv2.resize(image, (int(width), int(height)))
    np.testing.assert_array_equal(canvas, wanted)


def test_flip_before_and_after_resize_agree():
    image = np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    flip, scale = {"RandomFlip": {"prob": 1.0}}, {"Resize": {"keep_ratio": True}}
    canvases = blank(64, 60), blank(64, 60)
    valid, before = apply([flip, scale], sample_of(image), np.random.default_rng(0), canvases[0])
    other_valid, after = apply([scale, flip], sample_of(image), np.random.default_rng(0), canvases[1])
    for one, other in zip((valid, *before, canvases[0]), (other_valid, *after, canvases[1])):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(before.boxes[0], [(40 - 4) * 1.5, 3, (40 - 1) * 1.5, 7.5])


def test_padding():
    boxes, labels, mask = pad_boxes(BOXES, np.array([3, 0], dtype=np.int32), 4, -1)
    np.testing.assert_array_equal(boxes, [*BOXES, [0] * 4, [0] * 4])
    np.testing.assert_array_equal(labels, [3, 0, -1, -1])
    np.testing.assert_array_equal(mask, [True, True, False, False])
    assert boxes.dtype == np.float32 and labels.dtype == np.int32 and mask.dtype == bool
