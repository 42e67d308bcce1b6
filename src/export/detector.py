"""A detector for single images of any size, loaded from a checkpoint, and the names of its classes."""
from __future__ import annotations

import logging
import os

import numpy as np
from mindspore import Tensor

from src.checkpoint import Checkpoint, load_weights
from src.config import Config
from src.config.schema import Data
from src.dataset.annotations import read_class_names
from src.dataset.resize import choose_canvas, scaling_of
from src.dataset.transforms import apply_to_image
from src.detector import Predictor, build_empty_detector
from src.errors import UserError
from src.evaluation.detections import detections_of_image
from src.models.faster_rcnn import FasterRCNN

logger = logging.getLogger("faster_rcnn")


def load_detector(cfg: Config, checkpoint: Checkpoint) -> FasterRCNN:
    """Return the detector in a checkpoint, with its number of classes; raise a UserError if it does not fit the configuration."""
    checkpoint.log_contradictions(cfg)
    network = build_empty_detector(cfg, checkpoint.num_classes)
    load_weights(network, checkpoint)
    return network


def class_names(data: Data, checkpoint: Checkpoint) -> list[str]:
    """Return the names of a checkpoint's classes in label order.

    The first available source is used: names or classes of `data`, the configuration's section; the checkpoint; the validation
    annotations, if the number of classes is the same; `class 0`, `class 1`, ..., with a warning.

    Raises:
        UserError: if data.names or data.classes has another number of names.
    """
    path, count = checkpoint.path, checkpoint.num_classes
    for key in ("names", "classes"):
        if given := getattr(data, key):
            if len(given) != count:
                raise UserError(f"data.{key} lists {len(given)} classes, but {path} has {count}: correct or remove data.{key}.")
            return given
    names = checkpoint.class_names or []
    if not names and data.dataset_dir:
        try:
            names = read_class_names(os.path.join(os.path.expanduser(data.dataset_dir), data.files("val")[0][0]))
        except UserError as error:
            logger.info("no class names from the annotations: %s", error)
    if len(names) == count:
        return names
    logger.warning("the names of the %d classes of %s are not known: set data.names; they are called class 0, ...", count, path)
    return [f"class {label}" for label in range(count)]


def detect(predictor: Predictor, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Detect objects on an image (h, w, 3) uint8 RGB of any size, like an evaluation with batch size 1.

    Returns:
        boxes (n, 4) float32 xyxy, pixels of the image; scores (n,) float32, descending; labels (n,) int64, 0..K-1; whether all
        scores of the network are finite.
    """
    data = predictor.cfg.data
    transforms, canvases = data.eval_transforms.item_transforms, data.canvases
    number = choose_canvas((image.shape[0], image.shape[1]), canvases, scaling_of(transforms))
    canvas = np.empty((*canvases[number], 3), np.uint8)
    valid_size, scale = apply_to_image(transforms, image, canvas)
    boxes, scores = predictor(Tensor(canvas[None]), Tensor(valid_size[None]))
    found = detections_of_image(boxes[0], scores[0], predictor.cfg.infer, scale, np.array(image.shape[:2]))
    return (*found, bool(np.isfinite(scores[0]).all()))
