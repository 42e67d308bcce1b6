"""Applies the configured list of transforms to a sample, from the decoded image to its canvas and its padded boxes.

Each random transform uses the random generator of its sample.
"""
from __future__ import annotations

import functools
import random
from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from src.dataset.resize import MAX_CROPS, Sample, crop, resize, scale_jitter, scaling_of
from src.errors import UserError

LEVELS = np.arange(256.0)  # grey levels of a channel
QUARTER_TURNS = {1: cv2.ROTATE_90_CLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_COUNTERCLOCKWISE}


def apply(item_transforms: list[dict], sample: Sample, rng: Generator, canvas: np.ndarray) -> tuple[np.ndarray, Sample]:
    """Apply the configured transforms in order, and put the image at the top left of the canvas, with zeros elsewhere.

    NormalizeImage and TransposeImage run as part of the network, and `pad_boxes` applies LabelsPadding.

    Args:
        item_transforms: one-key dicts with all parameters; one of them is Resize or ScaleJitter.
        sample: the sample as read from its file.
        rng: the only source of randomness.
        canvas: (H, W, 3) uint8; completely overwritten.

    Returns:
        valid_size: (2,) float32, height and width of the image on the canvas.
        sample: the transformed sample, with boxes in canvas pixels.
    """
    for item in item_transforms:
        [(name, parameters)] = item.items()
        if name in AUGMENTATIONS:
            sample = AUGMENTATIONS[name](sample, rng, **parameters)
        elif name == "ScaleJitter":
            sample = scale_jitter(sample, rng, canvas, **parameters)
        elif name == "Resize":
            sample = resize(sample, canvas, scaling_of([item]))
    height, width = sample.size
    if not np.may_share_memory(sample.image, canvas):
        canvas[:height, :width] = sample.image
    canvas[:height, width:] = 0
    canvas[height:] = 0
    return np.array([height, width], dtype=np.float32), sample


def apply_to_image(item_transforms: list[dict], image: np.ndarray, canvas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Call `apply` for an image without annotations and with deterministic transforms, and return valid size and scale."""
    sample = Sample(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int32))
    valid_size, sample = apply(item_transforms, sample, np.random.default_rng(0), canvas)
    return valid_size, sample.scale


def padding_of(item_transforms: list[dict]) -> tuple[int, int]:
    """Return the parameters of LabelsPadding: (padding_size, padding_value)."""
    [parameters] = [item["LabelsPadding"] for item in item_transforms if "LabelsPadding" in item]
    return parameters["padding_size"], parameters["padding_value"]


def pad_boxes(boxes: np.ndarray, labels: np.ndarray, padding_size: int,
              padding_value: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pad to a fixed length. Return boxes (padding_size, 4) float32 padded with zeros, labels (padding_size,) int32 padded
    with `padding_value`, and a mask (padding_size,) bool that is True for real boxes."""
    rest = padding_size - len(boxes)
    return (np.pad(boxes, ((0, rest), (0, 0))), np.pad(labels, (0, rest), constant_values=padding_value),
            np.arange(padding_size) < len(boxes))


def random_flip(sample: Sample, rng: Generator, prob: float, axis: int = 1) -> Sample:
    """Mirror image and boxes left to right (axis 1) or top to bottom (axis 0) with probability `prob`."""
    if rng.random() >= prob:
        return sample
    low, high = 1 - axis, 3 - axis  # columns of this axis in a box, where x comes first
    boxes = sample.boxes.copy()
    boxes[:, [low, high]] = sample.size[axis] - sample.boxes[:, [high, low]]
    return sample._replace(image=cv2.flip(sample.image, axis), boxes=boxes)


def random_rotate90(sample: Sample, rng: Generator, prob: float) -> Sample:
    """Rotate image and boxes by 90, 180 or 270 degrees, equally likely, with probability `prob`."""
    if rng.random() >= prob:
        return sample
    turns = int(rng.integers(1, 4))
    (height, width), (x1, y1, x2, y2) = sample.size, sample.boxes.T
    turned = {1: (height - y2, x1, height - y1, x2),  # clockwise
              2: (width - x2, height - y2, width - x1, height - y1),
              3: (y1, width - x2, y2, width - x1)}[turns]
    return sample._replace(image=cv2.rotate(sample.image, QUARTER_TURNS[turns]), boxes=np.stack(turned, axis=1))


def random_crop(sample: Sample, rng: Generator, prob: float, min_scale: float, min_area: float) -> Sample:
    """Crop a random window with probability `prob`, see `crop`.

    Each side of the window is sampled from min_scale..1 of the image's side, then its position; both are whole pixels. If a
    window removes all boxes, another one is sampled. After MAX_CROPS attempts the image is not cropped.
    """
    if rng.random() >= prob:
        return sample
    for _ in range(MAX_CROPS):
        ends = []  # top, bottom, left, right
        for side in sample.size:
            length = max(1, round(side * rng.uniform(min_scale, 1.0)))
            start = int(rng.integers(0, side - length + 1))
            ends += [start, start + length]
        cropped = crop(sample, (ends[2], ends[0], ends[3], ends[1]), min_area)
        if len(cropped.boxes) or not len(sample.boxes):
            return cropped
    return sample


def random_hsv(sample: Sample, rng: Generator, hgain: float, sgain: float, vgain: float) -> Sample:
    """Multiply hue, saturation and value by random factors from [1 - gain, 1 + gain]."""
    hue, saturation, value = 1.0 + rng.uniform(-1.0, 1.0, 3) * (hgain, sgain, vgain)
    tables = [LEVELS * hue % 180, np.clip(LEVELS * saturation, 0, 255), np.clip(LEVELS * value, 0, 255)]
    table = np.stack(tables, axis=1).astype(np.uint8)[None]
    image = cv2.cvtColor(cv2.LUT(cv2.cvtColor(sample.image, cv2.COLOR_RGB2HSV), table), cv2.COLOR_HSV2RGB)
    return sample._replace(image=image)


def photometric_distortion(sample: Sample, rng: Generator, brightness: float, contrast: float, saturation: float,
                           hue: float) -> Sample:
    """Change brightness, contrast, saturation and hue, each with probability 0.5, as in SSD (arXiv:1512.02325).

    Brightness is an offset of up to `brightness` grey levels, and hue an offset of up to `hue` degrees. Contrast and saturation
    are factors from [1 - x, 1 + x]. Contrast is applied at random either before or after saturation and hue.
    """
    limits = np.array([brightness, contrast, saturation, hue])
    drawn = np.where(rng.random(4) < 0.5, rng.uniform(-limits, limits), 0.0)
    first, last = rng.permutation([1.0, 1.0 + drawn[1]])  # contrast factors; one of them is 1 and has no effect
    image = _look_up(sample.image, np.clip(LEVELS + drawn[0], 0, 255) * first)
    if drawn[2:].any():
        # OpenCV's hues are 0..179, 2 degrees each. COLOR_RGB2HSV_FULL has 256 levels, but the inverse conversion assumes 255.
        tables = [(LEVELS + drawn[3] / 2).round() % 180, LEVELS * (1.0 + drawn[2]), LEVELS]
        image = cv2.cvtColor(_look_up(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), np.stack(tables, axis=1)[None]), cv2.COLOR_HSV2RGB)
    return sample._replace(image=_look_up(image, LEVELS * last))


def _look_up(image, table):
    """Return the image (h, w, 3) uint8 mapped through a float look-up table (256,), or (1, 256, 3) with one per channel."""
    if np.array_equal(table, LEVELS):
        return image
    return cv2.LUT(image, np.clip(table.round(), 0, 255).astype(np.uint8))


def transform_with_albumentations(sample: Sample, rng: Generator, transforms: list[dict]) -> Sample:
    """Apply `transforms`, one-key dicts {name: parameters} of the library albumentations. The image size may change.

    Boxes of which less than half remains visible are dropped. Transforms are created for each sample, because they hold random
    state and several threads call this function. That takes 0.1 to 0.2 ms per transform.

    Raises:
        UserError: a transform fails on this image, or does not return (h, w, 3) uint8.
    """
    import albumentations  # an optional dependency

    steps = [getattr(albumentations, name)(**parameters) for item in transforms for name, parameters in item.items()]
    # Boxes that rounding made empty are invalid. NoOp counts as a transform that moves boxes. Without such a transform, the
    # library prints a warning.
    bbox_params = albumentations.BboxParams("pascal_voc", min_visibility=0.5, clip=True, filter_invalid_bboxes=True)
    compose = albumentations.Compose([*steps, albumentations.NoOp()], bbox_params=bbox_params)
    # Compose's argument `seed` would start all transforms from the same state, so that their decisions would be correlated.
    compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
    try:
        found = compose(image=sample.image, bboxes=np.column_stack([sample.boxes, sample.labels]))
        image = found["image"]
        if image.dtype != np.uint8 or image.shape[2:] != (3,):
            raise ValueError(f"the result is {image.dtype} of shape {image.shape} instead of uint8 with three channels")
    except Exception as error:  # the library may raise any type
        raise UserError(f"data.train_transforms: Albumentations fails on an image of {sample.size[0]}x{sample.size[1]} pixels "
                        f"(height x width) ({type(error).__name__}: {error}); correct its list.") from error
    boxes = found["bboxes"].reshape(-1, 5)  # without boxes, the library drops the label column
    return sample._replace(image=image, boxes=boxes[:, :4].astype(np.float32), labels=boxes[:, 4].astype(np.int32))


AUGMENTATIONS: dict[str, Callable[..., Sample]] = {
    "RandomFlip": random_flip, "RandomVerticalFlip": functools.partial(random_flip, axis=0), "RandomRotate90": random_rotate90,
    "RandomCrop": random_crop, "RandomHSV": random_hsv, "PhotometricDistortion": photometric_distortion,
    "Albumentations": transform_with_albumentations}
