"""The transform Albumentations: boxes compared with masks, seeds, threads, and unsupported transforms."""
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from src.dataset.transforms import transform_with_albumentations
from src.errors import UserError
from src.run.environment import DEFAULTS
from tests.helpers.drawn_boxes import check_extents, draw_sample, is_near, rng_of, same, sample_of
from tests.helpers.paths import ROOT

MIXED = [{"HorizontalFlip": {"p": 0.5}}, {"RandomRotate90": {"p": 0.7}}, {"RandomBrightnessContrast": {"p": 0.5}}]


def transformed(seed, transforms=MIXED):
    return transform_with_albumentations(draw_sample(rng_of(seed)), rng_of(1, seed), transforms)


def test_boxes_keep_to_their_drawn_masks_and_seeds_give_the_same_bits_in_any_thread():
    alone = [transformed(seed) for seed in range(1000)]
    for seed, found in enumerate(alone):
        check_extents(found, level=128)  # the library's largest changes of brightness and contrast keep black below this level
        assert found.labels.tolist() == draw_sample(rng_of(seed)).labels.tolist()
    with ThreadPoolExecutor(4) as pool:
        assert all(map(same, alone, pool.map(transformed, range(200))))
    other = [transform_with_albumentations(draw_sample(rng_of(seed)), rng_of(2, seed), MIXED) for seed in range(40)]
    assert not all(map(same, alone, other))


def test_a_box_of_which_less_than_half_is_left_is_dropped():
    dropped = 0
    for seed in range(500):
        sample = draw_sample(rng_of(seed), whole=True)
        found = transform_with_albumentations(sample, rng_of(1, seed), [{"RandomCropFromBorders": {
            "crop_left": 0.4, "crop_right": 0.4, "crop_top": 0.4, "crop_bottom": 0.4, "p": 1}}])
        check_extents(found)
        for label in sample.labels:
            share = np.count_nonzero(found.image[..., label]) / np.count_nonzero(sample.image[..., label])
            assert share == 0.5 or (label in found.labels) == (share > 0.5)
        dropped += len(sample.labels) - len(found.labels)
    assert dropped > 50


def test_transforms_are_drawn_one_apart_from_the_other():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    flips = [{"HorizontalFlip": {"p": 0.5}}, {"VerticalFlip": {"p": 0.5}}]
    corners = [int(transform_with_albumentations(sample_of(image), rng_of(seed), flips).image[0, 0, 0]) for seed in range(600)]
    assert all(is_near(corners.count(corner), 600, 0.25) for corner in image[[0, 0, -1, -1], [0, -1, 0, -1], 0])


def test_a_sample_that_loses_all_boxes_keeps_its_shapes_and_raises_no_warning(recwarn):
    sample = sample_of(np.zeros((40, 60, 3), np.uint8), [[0, 0, 9, 9]])
    found = transform_with_albumentations(sample, rng_of(0), [{"Crop": {"x_min": 20, "y_min": 0, "x_max": 50, "y_max": 40}}])
    assert found.image.shape == (40, 30, 3)
    assert found.boxes.shape == (0, 4) and found.labels.shape == (0,)
    again = transform_with_albumentations(found, rng_of(0), [{"GaussNoise": {"p": 1}}])
    assert again.boxes.shape == (0, 4) and again.labels.dtype == np.int32 and not list(recwarn)


@pytest.mark.parametrize(("transforms", "sentence"), [
    ([{"ToFloat": {"p": 1}}], r"an image of 40x60 pixels .*: the result is float32 of shape \(40, 60, 3\) instead of uint8"),
    ([{"ToGray": {"num_output_channels": 1, "p": 1}}], r"the result is uint8 of shape \(40, 60\) instead"),
    ([{"CenterCrop": {"height": 50, "width": 50}}], r"an image of 40x60 pixels .* \(CropSizeError: .*; correct its list")],
    ids=["floats", "one channel", "too small"])
def test_what_cannot_be_transformed_is_one_sentence(transforms, sentence):
    sample = sample_of(np.zeros((40, 60, 3), np.uint8), [[0, 0, 9, 9]])
    with pytest.raises(UserError, match=sentence):
        transform_with_albumentations(sample, rng_of(0), transforms)


def test_the_library_asks_no_network_and_leaves_opencv_its_one_thread():
    program = """
import sys
sys.path.insert(0, "")
sys.addaudithook(lambda event, args: print(event) if event.startswith(("socket.", "urllib.")) else None)
from src.run.environment import set_environment
set_environment()
import albumentations, cv2
print("threads", cv2.getNumThreads())
"""
    environment = {name: value for name, value in os.environ.items() if name not in DEFAULTS}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("threads 1\n", "")
