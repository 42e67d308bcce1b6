"""Transforms of one sample: image (h, w, 3) uint8 RGB and boxes (n, 4) float32 xyxy in its pixels."""
from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator


def random_flip(image: np.ndarray, boxes: np.ndarray, rng: Generator, prob: float) -> tuple[np.ndarray, np.ndarray]:
    """Mirror image and boxes left to right with probability `prob`."""
    if rng.random() >= prob:
        return image, boxes
    width = image.shape[1]
    mirrored = boxes.copy()
    mirrored[:, 0] = width - boxes[:, 2]
    mirrored[:, 2] = width - boxes[:, 0]
    return cv2.flip(image, 1), mirrored


def random_hsv(image: np.ndarray, rng: Generator, hgain: float, sgain: float, vgain: float) -> np.ndarray:
    """Multiply hue, saturation and value by factors drawn from [1 - gain, 1 + gain]."""
    factors = 1.0 + rng.uniform(-1.0, 1.0, 3) * (hgain, sgain, vgain)
    levels = np.arange(256)
    tables = [levels * factors[0] % 180, np.clip(levels * factors[1], 0, 255), np.clip(levels * factors[2], 0, 255)]
    table = np.stack(tables, axis=1).astype(np.uint8)[None]
    return cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table), cv2.COLOR_HSV2RGB)


def fitted_size(size: tuple[int, int], canvas_size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) in whole pixels of an image of `size` (height, width), scaled to just fit into `canvas_size`."""
    scale = min(canvas_size[0] / size[0], canvas_size[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize(image: np.ndarray, boxes: np.ndarray, canvas: np.ndarray, shrink: str = "linear") -> tuple[np.ndarray, np.ndarray]:
    """Scale image and boxes by one factor so that the image just fits into the canvas (H, W, 3) uint8.

    Sides are whole pixels, so boxes are scaled by the ratio that each axis really got. The scaled image is the canvas's own
    top-left part, which saves a copy; an image that fits already is given back as it is. Images are enlarged by linear
    interpolation, and made smaller as `shrink` says: `linear`, or `area`, the mean of the pixels that fall into one.
    """
    old_height, old_width = image.shape[:2]
    new_height, new_width = fitted_size((old_height, old_width), (canvas.shape[0], canvas.shape[1]))
    if (new_height, new_width) != (old_height, old_width):
        place = canvas[:new_height, :new_width]
        smaller = new_height < old_height or new_width < old_width
        interpolation = cv2.INTER_AREA if smaller and shrink == "area" else cv2.INTER_LINEAR
        cv2.resize(image, (new_width, new_height), dst=place, interpolation=interpolation)
        image = place
    ratios = np.array([new_width / old_width, new_height / old_height] * 2, dtype=np.float32)
    return image, boxes * ratios


def apply(item_transforms: list[dict], image: np.ndarray, boxes: np.ndarray, rng: Generator,
          canvas: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Apply a configuration's list of transforms in its order and put the image at the top-left of the canvas, zeros beside it.

    The list's NormalizeImage and TransposeImage happen next to the network, LabelsPadding in `pad_boxes`.

    Args:
        item_transforms: one-key dicts with all parameters, Resize among them.
        image: (h, w, 3) uint8.
        boxes: (n, 4) float32 xyxy, pixels of the image.
        rng: the only source of randomness.
        canvas: (H, W, 3) uint8, all of it is written.

    Returns:
        valid_size: (2,) float32, height and width of the image on the canvas.
        boxes: (n, 4) float32 xyxy, canvas pixels.
        scale: (2,) float32, canvas pixels per original pixel, (sy, sx).
    """
    old_size = np.array(image.shape[:2], dtype=np.float32)
    for item in item_transforms:
        [(name, parameters)] = item.items()
        if name == "RandomFlip":
            image, boxes = random_flip(image, boxes, rng, **parameters)
        elif name == "RandomHSV":
            image = random_hsv(image, rng, **parameters)
        elif name == "Resize":
            image, boxes = resize(image, boxes, canvas, parameters.get("shrink", "linear"))
    height, width = image.shape[:2]
    if not np.may_share_memory(image, canvas):
        canvas[:height, :width] = image
    canvas[:height, width:] = 0
    canvas[height:] = 0
    valid_size = np.array([height, width], dtype=np.float32)
    return valid_size, boxes, valid_size / old_size


def apply_to_image(item_transforms: list[dict], image: np.ndarray, canvas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`apply` for an image without annotations, with transforms of which none is random; -> valid size and scale."""
    valid_size, _, scale = apply(item_transforms, image, np.zeros((0, 4), np.float32), np.random.default_rng(0), canvas)
    return valid_size, scale


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
