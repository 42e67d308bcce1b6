"""The list of transforms of one sample, from the image of a file to its canvas."""
from __future__ import annotations

import numpy as np
from numpy.random import Generator

from src.dataset.augmentation import AUGMENTATIONS
from src.dataset.resize import resize, scale_jitter, scaling_of
from src.dataset.sample import Sample


def apply(item_transforms: list[dict], sample: Sample, rng: Generator, canvas: np.ndarray) -> tuple[np.ndarray, Sample]:
    """Apply a configuration's list of transforms in its order and put the image at the top-left of the canvas, zeros beside it.

    The list's NormalizeImage and TransposeImage happen next to the network, LabelsPadding in `pad_boxes`.

    Args:
        item_transforms: one-key dicts with all parameters, Resize or ScaleJitter among them.
        sample: as the file has it.
        rng: the only source of randomness.
        canvas: (H, W, 3) uint8, all of it is written.

    Returns:
        valid_size: (2,) float32, height and width of the image on the canvas.
        sample: whose boxes are in canvas pixels.
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
    """`apply` for an image without annotations, with transforms of which none is random; -> valid size and scale."""
    sample = Sample(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int32))
    valid_size, sample = apply(item_transforms, sample, np.random.default_rng(0), canvas)
    return valid_size, sample.scale


def padding_of(item_transforms: list[dict]) -> tuple[int, int]:
    """The parameters of LabelsPadding: (padding_size, padding_value)."""
    [parameters] = [item["LabelsPadding"] for item in item_transforms if "LabelsPadding" in item]
    return parameters["padding_size"], parameters["padding_value"]


def pad_boxes(boxes: np.ndarray, labels: np.ndarray, padding_size: int,
              padding_value: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pad to a fixed count: boxes (padding_size, 4) float32 with zeros, labels (padding_size,) int32 with
    `padding_value`, and mask (padding_size,) bool, True for real boxes."""
    rest = padding_size - len(boxes)
    return (np.pad(boxes, ((0, rest), (0, 0))), np.pad(labels, (0, rest), constant_values=padding_value),
            np.arange(padding_size) < len(boxes))
