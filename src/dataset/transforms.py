"""Applies the configured list of transforms to a sample, from the decoded image to its canvas."""
from __future__ import annotations

import numpy as np
from numpy.random import Generator

from src.dataset.augmentation import AUGMENTATIONS
from src.dataset.resize import resize, scale_jitter, scaling_of
from src.dataset.sample import Sample


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
    image = sample.image
    height, width = image.shape[:2]
    if not np.may_share_memory(image, canvas):
        canvas[:height, :width] = image
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
