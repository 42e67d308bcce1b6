"""The data set that a configuration names."""
import os

from src.dataset.annotations import load_coco
from src.dataset.shapes import ensure_shapes
from src.errors import UserError


def open_dataset(data, split):
    """The records of one split.

    Args:
        data: the section `data` of the configuration; with `draw_shapes`, the program first draws its own data set;
        split: "train" or "val".

    Raises:
        UserError: see `load_coco` and `ensure_shapes`; no data.dataset_dir.
    """
    if not data.dataset_dir:
        raise UserError("data.dataset_dir is empty: set it in the YAML file or with -o data.dataset_dir=FOLDER.")
    folder = os.path.expanduser(data.dataset_dir)
    if data.draw_shapes:
        shapes = data.draw_shapes
        ensure_shapes(folder, shapes.train_images, shapes.val_images, shapes.height, shapes.width, shapes.seed)
    annotations, images = getattr(data, f"{split}_anno_path"), getattr(data, f"{split}_img_dir")
    return load_coco(os.path.join(folder, annotations), os.path.join(folder, images), data.nc, data.names)
