"""Inputs of the measured network: noise, for which times depend only on the sizes, or real images."""
import contextlib
import itertools

import numpy as np
from mindspore import Tensor

from src.dataset.loader import Batch, EvalLoader, Loader, TrainLoader
from src.dataset.splits import open_training_set, open_validation_set
from src.dataset.transforms import pad_boxes, padding_of
from src.errors import UserError

BOXES = 6  # boxes per noise image
MAX_BATCHES = 4  # maximum number of batches of real images


def padding_size(cfg):
    """Return the padded number of boxes per image."""
    return max(padding_of(cfg.data.train_transforms.item_transforms)[0], BOXES)


def draw_inputs(batch_size, height, width, num_classes):
    """Return images of normal noise with six boxes each, the same in every run.

    The noise of all images is sampled before the boxes, image by image with channels first. A program in another framework can
    therefore sample the same numbers.

    Returns:
        images (B, 3, H, W) float32; boxes (B, 6, 4) float32 xyxy pixels; labels (6,) int32, the same for each image.
    """
    rng = np.random.default_rng(0)
    images = np.stack([rng.standard_normal((3, height, width)).astype(np.float32) for _ in range(batch_size)])
    boxes = []
    for _ in range(batch_size):
        corner = rng.uniform(0, [width * .6, height * .6], (BOXES, 2))
        boxes.append(np.concatenate([corner, corner + rng.uniform(20, [width * .4, height * .4], (BOXES, 2))], axis=1))
    return images, np.stack(boxes).astype(np.float32), np.arange(BOXES, dtype=np.int32) % num_classes


def noise_batch(cfg, num_classes):
    """Return a `Batch` of noise with boxes, in the format of `TrainLoader`."""
    height, width = size = cfg.data.canvases[0]
    images, boxes, labels = draw_inputs(cfg.batch_size, height, width, num_classes)
    pixels = np.clip(np.round(255 * images), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    _, padding_value = padding_of(cfg.data.train_transforms.item_transforms)
    rows = [pad_boxes(own, labels, padding_size(cfg), padding_value) for own in boxes]
    valid_size = np.tile(np.float32(size), (cfg.batch_size, 1))
    columns = (pixels, valid_size, *map(np.stack, zip(*rows)), np.arange(cfg.batch_size), valid_size.astype(np.int32),
               np.ones_like(valid_size), np.ones(cfg.batch_size, bool))
    return Batch(*(Tensor(np.ascontiguousarray(column)) for column in columns[:5]), *columns[5:])


def real_batches(cfg, group, checkpoint, what):
    """Return the first batches of cfg's training and validation sets, read like train.py and eval.py.

    Args:
        cfg: the configuration.
            group: process group; all its processes get the same batches.
            checkpoint: `Checkpoint` of the detector that gets the batches.
            what: names of the requested batches: train, predict.

    Returns:
            Dict from these names to a list of at most MAX_BATCHES `Batch`.

    Raises:
            UserError: a data set cannot be read, or its number of classes differs from the checkpoint's.
    """
    loaders: dict[str, Loader] = {}
    if "train" in what:
        training_set = open_training_set(cfg, group)
        require_class_count(training_set, checkpoint)
        loaders["train"] = TrainLoader(training_set, cfg)
    if "predict" in what:
        validation_set = open_validation_set(cfg, group, checkpoint.class_names)
        require_class_count(validation_set, checkpoint)
        loaders["predict"] = EvalLoader(validation_set, cfg)
    return {part: first_batches(loader) for part, loader in loaders.items()}


def require_class_count(dataset, checkpoint):
    """Raise a UserError if the data set's number of classes differs from that of the checkpoint's detector."""
    if len(dataset.names) != checkpoint.num_classes:
        raise UserError(f"{dataset.annotation_path} has {len(dataset.names)} classes, but {checkpoint.path} has "
                        f"{checkpoint.num_classes}; give the configuration that it was trained with.")


def first_batches(loader):
    """Return the first MAX_BATCHES batches of a `Loader`, or all if it has fewer, and read no further."""
    with contextlib.closing(loader.batches()) as stream:
        return list(itertools.islice(stream, MAX_BATCHES))
