"""Applies transforms of the library albumentations, an optional dependency."""
from __future__ import annotations

import random

import numpy as np
from numpy.random import Generator

from src.dataset.sample import Sample
from src.errors import UserError

# Boxes are dropped if a transform leaves a smaller fraction of them visible.
MIN_VISIBILITY = 0.5


def transform_with_albumentations(sample: Sample, rng: Generator, transforms: list[dict]) -> Sample:
    """Apply `transforms`, one-key dicts {name: parameters} of the library, to image and boxes. The image size may change.

    Transforms are created for each sample, because they hold random state and several threads call this function. That takes
    0.1 to 0.2 ms per transform.

    Raises:
        UserError: a transform fails on this image, or does not return (h, w, 3) uint8.
    """
    import albumentations

    steps = [getattr(albumentations, name)(**parameters) for item in transforms for name, parameters in item.items()]
    # Boxes that rounding made empty are invalid. NoOp counts as a transform that moves boxes. Without such a transform, the
    # library prints a warning.
    bbox_params = albumentations.BboxParams("pascal_voc", min_visibility=MIN_VISIBILITY, clip=True, filter_invalid_bboxes=True)
    compose = albumentations.Compose([*steps, albumentations.NoOp()], bbox_params=bbox_params)
    # Compose's argument `seed` would start all transforms from the same state, so that their decisions would be correlated.
    compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
    rows = np.column_stack([sample.boxes, sample.labels])
    try:
        found = compose(image=sample.image, bboxes=rows)
    except Exception as error:  # the library may raise any type
        raise _failure(sample, f"{type(error).__name__}: {error}") from error
    image = found["image"]
    if image.dtype != np.uint8 or image.shape[2:] != (3,):
        raise _failure(sample, f"the result is {image.dtype} of shape {image.shape} instead of uint8 with three channels")
    boxes = found["bboxes"].reshape(-1, 5)  # without boxes, the library drops the label column
    return sample._replace(image=image, boxes=boxes[:, :4].astype(np.float32), labels=boxes[:, 4].astype(np.int32))


def _failure(sample: Sample, reason: str) -> UserError:
    height, width = sample.image.shape[:2]
    return UserError(f"data.train_transforms: Albumentations fails on an image of {height}x{width} pixels (height x width) "
                     f"({reason}); correct its list.")
