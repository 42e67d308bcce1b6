"""Inputs that an exported detector is compared with the network on."""
import numpy as np

from src.dataset.drawing import draw_scene
from src.dataset.image import UnreadableImageError, read_picture
from src.dataset.transforms import apply
from src.errors import UserError
from src.inference.inputs import find_pictures

DRAWN_SIZE = (480, 640)  # height, width


def sample_pictures(places, count):
    """The pictures, a list of (h, w, 3) uint8 RGB, that `places` name; where it is empty, `count` that are drawn.

    Args:
        places: see `find_pictures`.

    Raises:
        UserError: there is no such place, or a picture cannot be read.
    """
    if not places:
        return [draw_scene(np.random.default_rng([0, number]), *DRAWN_SIZE)[0] for number in range(count)]
    pictures = []
    for path in find_pictures(places):
        try:
            pictures.append(read_picture(path))
        except UnreadableImageError as error:
            raise UserError(f"{path}: {error}; give another --image.") from error
    return pictures


def batches_of(pictures, cfg):
    """The pictures as the network takes them, in batches of cfg.batch_size, the last filled up with the first ones.

    Returns:
        List of (image uint8 (B, H, W, 3), valid_size float32 (B, 2)), numpy.
    """
    size, count = cfg.batch_size, len(pictures)
    canvases = np.empty((-(-count // size) * size, *cfg.data.target_size, 3), np.uint8)
    nothing_random, no_boxes = None, np.zeros((0, 4), np.float32)
    valid = [apply(cfg.data.eval_transforms.item_transforms, pictures[number % count], no_boxes, nothing_random, canvas)[0]
             for number, canvas in enumerate(canvases)]
    return [(canvases[start:start + size], np.stack(valid[start:start + size])) for start in range(0, len(canvases), size)]
