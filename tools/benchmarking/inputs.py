"""What the network is given: noise in the place of photographs, with which times depend on the sizes alone, or real images."""
import contextlib
import itertools

import numpy as np
from mindspore import Tensor

from src.dataset.loader import Batch, EvalLoader, Loader, TrainLoader
from src.dataset.splits import open_training_set, open_validation_set
from src.dataset.transforms import pad_boxes, padding_of
from src.errors import UserError

BOXES = 6  # an image of noise
MAX_BATCHES = 4  # of real images


def padding_size(cfg):
    """Length of the box lists."""
    return max(padding_of(cfg.data.train_transforms.item_transforms)[0], BOXES)


def draw_inputs(batch_size, height, width, num_classes):
    """Images of normal noise with six boxes each, the same in every run.

    All noise is drawn before the boxes, image by image with its channels first, so that a program of another framework can
    draw the same.

    Returns:
        images (B, 3, H, W) float32; boxes (B, 6, 4) float32 xyxy pixels; labels (6,) int32, of each image.
    """
    rng = np.random.default_rng(0)
    images = np.stack([rng.standard_normal((3, height, width)).astype(np.float32) for _ in range(batch_size)])
    boxes = []
    for _ in range(batch_size):
        corner = rng.uniform(0, [width * .6, height * .6], (BOXES, 2))
        boxes.append(np.concatenate([corner, corner + rng.uniform(20, [width * .4, height * .4], (BOXES, 2))], axis=1))
    return images, np.stack(boxes).astype(np.float32), np.arange(BOXES, dtype=np.int32) % num_classes


def noise_batch(cfg, num_classes):
    """A `Batch` of noise with boxes, as `TrainLoader` gives it."""
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
    """The first batches of cfg's training and validation set, as train.py and eval.py read them.

    Args:
        cfg: the configuration.
        group: the process group, of which every process gets the same.
        checkpoint: `Checkpoint` of the detector that they are for.
        what: which of train and predict are wanted.

    Returns:
        Dict by these names: list of at most MAX_BATCHES `Batch`.

    Raises:
        UserError: a data set cannot be read, or has another number of classes than the checkpoint.
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
    """Raise a UserError unless a data set has as many classes as the detector of the checkpoint."""
    if len(dataset.names) != checkpoint.num_classes:
        raise UserError(f"{dataset.annotation_path} has {len(dataset.names)} classes, but {checkpoint.path} has "
                        f"{checkpoint.num_classes}; give the configuration that it was trained with.")


def first_batches(loader):
    """At most MAX_BATCHES batches of a `Loader`, which reads no more."""
    with contextlib.closing(loader.batches()) as stream:
        return list(itertools.islice(stream, MAX_BATCHES))
