"""Small data sets on disk, and the settings that the data pipeline reads."""
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from src.dataset.annotations import load_coco


@pytest.fixture
def write_coco(tmp_path):
    """Write an annotation file and flat-coloured PNG files; returns (annotation path, image folder).

    Image number i has the colour (10 * i % 256, 100, 200) in RGB.
    """
    def write(images, annotations, folder="annotations"):
        image_dir = tmp_path / "images"
        image_dir.mkdir(exist_ok=True)
        (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / folder / "instances.json"
        categories = [{"id": 5, "name": "cat"}, {"id": 2, "name": "dog"}]
        path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
        for number, image in enumerate(images):
            pixels = np.full((image["height"], image["width"], 3), (200, 100, 10 * number % 256), dtype=np.uint8)
            cv2.imwrite(str(image_dir / image["file_name"]), pixels)
        return str(path), str(image_dir)
    return write


@pytest.fixture
def make_set(write_coco):
    """Return a data set of `count` images of 40 x 60 with ids 100, 101, ... and one box each, except for `without`.

    The images with the numbers `upright` are 60 x 40.
    """
    def make(count, without=(), upright=()):
        sizes = [(60, 40) if number in upright else (40, 60) for number in range(count)]
        images = [{"id": 100 + i, "file_name": f"{i}.png", "height": size[0], "width": size[1]} for i, size in enumerate(sizes)]
        annotations = [{"id": i, "image_id": 100 + i, "category_id": 5, "bbox": [i, 2, 10, 20]}
                       for i in range(count) if i not in without]
        return load_coco(*write_coco(images, annotations))
    return make


@pytest.fixture
def make_cfg():
    """Return the settings that the loaders read; keywords replace the top-level ones."""
    def make(padding_size=4, item_transforms=(), canvases=((64, 64),), keep_empty_images=False,
             repeat_threshold=0.0, **settings):
        items = [*item_transforms, {"Resize": {"keep_ratio": True}},
                 {"LabelsPadding": {"padding_size": padding_size, "padding_value": -1}}]
        transforms = SimpleNamespace(item_transforms=items)
        data = SimpleNamespace(canvases=canvases, train_transforms=transforms, eval_transforms=transforms,
                               keep_empty_images=keep_empty_images, repeat_threshold=repeat_threshold)
        defaults = {"seed": 7, "batch_size": 2, "accumulate_steps": 1, "epochs": 2, "num_workers": 1, "prefetch_size": 4,
                    "max_rowsize": None}
        return SimpleNamespace(**{**defaults, **settings}, data=data)
    return make
