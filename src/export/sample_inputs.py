"""Provides inputs for the comparison of an exported detector with the network."""
from __future__ import annotations

import numpy as np

from src.dataset.image import UnreadableImageError, read_image
from src.dataset.image_paths import find_images
from src.dataset.shapes import draw_scene
from src.dataset.transforms import apply_to_image
from src.errors import UserError

DRAWN_SIZE = (480, 640)  # height, width


def sample_images(places: list[str], count: int) -> list[np.ndarray]:
    """Return sample images, (h, w, 3) uint8 RGB each.

    Args:
        places: files, folders or patterns, see `find_images`.
        count: number of synthetic images if `places` is empty.

    Raises:
        UserError: a place does not exist or an image cannot be read.
    """
    if not places:
        return [draw_scene(np.random.default_rng([0, number]), *DRAWN_SIZE)[0] for number in range(count)]
    images = []
    for path in find_images(places):
        try:
            images.append(read_image(path))
        except UnreadableImageError as error:
            raise UserError(f"{path}: {error}; give another --image.") from error
    return images


def batches_of(images: list[np.ndarray], cfg, canvas: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the images as inputs for the canvas (H, W), a list of pairs: image (B, H, W, 3) uint8 and valid_size (B, 2) float32.

    Batches have cfg.batch_size images. The last batch is filled up with the first images.
    """
    size, count = cfg.batch_size, len(images)
    canvases = np.empty((-(-count // size) * size, *canvas, 3), np.uint8)
    valid = [apply_to_image(cfg.data.eval_transforms.item_transforms, images[number % count], place)[0]
             for number, place in enumerate(canvases)]
    return [(canvases[start:start + size], np.stack(valid[start:start + size])) for start in range(0, len(canvases), size)]
