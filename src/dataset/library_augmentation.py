"""Transforms of the library albumentations, which is installed only by those who want it."""
from __future__ import annotations

import random

import numpy as np
from numpy.random import Generator

from src.dataset.sample import Sample
from src.errors import UserError

# A box of which less is visible after a transform is dropped.
MIN_VISIBILITY = 0.5


def transform_with_albumentations(sample: Sample, rng: Generator, transforms: list[dict]) -> Sample:
    """Apply `transforms`, one-key dicts {name: parameters} of the library, to image and boxes; the image's size may change.

    They are built anew for each sample, as they hold their random state and several threads call this. That takes 0.1 to 0.2 ms
    a transform.

    Raises:
        UserError: a transform fails on this image, or does not give (h, w, 3) uint8.
    """
    import albumentations

    steps = [getattr(albumentations, name)(**parameters) for item in transforms for name, parameters in item.items()]
    # Boxes that rounding has made empty are invalid. NoOp stands for a transform that moves boxes: without one, the library
    # warns that nothing does.
    bbox_params = albumentations.BboxParams("pascal_voc", min_visibility=MIN_VISIBILITY, clip=True, filter_invalid_bboxes=True)
    compose = albumentations.Compose([*steps, albumentations.NoOp()], bbox_params=bbox_params)
    # Compose's argument `seed` would start every transform from the same state, so that they would be applied together.
    compose.set_random_state(rng, random.Random(int(rng.integers(2**63))))
    rows = np.column_stack([sample.boxes, sample.labels])
    try:
        found = compose(image=sample.image, bboxes=rows)
    except Exception as error:  # whatever the library raises
        raise _failure(sample, f"{type(error).__name__}: {error}") from error
    image = found["image"]
    if image.dtype != np.uint8 or image.shape[2:] != (3,):
        raise _failure(sample, f"the result is {image.dtype} of shape {image.shape} instead of uint8 with three channels")
    boxes = found["bboxes"].reshape(-1, 5)  # the library drops the column of labels with the last box
    return sample._replace(image=image, boxes=boxes[:, :4].astype(np.float32), labels=boxes[:, 4].astype(np.int32))


def _failure(sample: Sample, reason: str) -> UserError:
    height, width = sample.image.shape[:2]
    return UserError(f"data.train_transforms: Albumentations fails on an image of {height}x{width} pixels (height x width) "
                     f"({reason}); correct its list.")
