"""Inputs that an exported detector is compared with the network on."""
import numpy as np

from src.dataset.drawing import draw_scene
from src.dataset.image import UnreadableImageError, read_image
from src.dataset.image_paths import find_images
from src.dataset.transforms import apply
from src.errors import UserError

DRAWN_SIZE = (480, 640)  # height, width


def sample_images(places, count):
    """The images, a list of (h, w, 3) uint8 RGB, that `places` name; where it is empty, `count` that are drawn.

    Args:
        places: see `find_images`.

    Raises:
        UserError: there is no such place, or a image cannot be read.
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


def batches_of(images, cfg):
    """The images as the network takes them, in batches of cfg.batch_size, the last filled up with the first ones.

    Returns:
        List of (image uint8 (B, H, W, 3), valid_size float32 (B, 2)), numpy.
    """
    size, count = cfg.batch_size, len(images)
    canvases = np.empty((-(-count // size) * size, *cfg.data.target_size, 3), np.uint8)
    nothing_random, no_boxes = None, np.zeros((0, 4), np.float32)
    valid = [apply(cfg.data.eval_transforms.item_transforms, images[number % count], no_boxes, nothing_random, canvas)[0]
             for number, canvas in enumerate(canvases)]
    return [(canvases[start:start + size], np.stack(valid[start:start + size])) for start in range(0, len(canvases), size)]
