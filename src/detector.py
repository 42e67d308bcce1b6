"""A detector that is ready to run: built from a configuration or loaded from a checkpoint, in the configured precision."""
from __future__ import annotations

import logging
import os

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from mindspore.nn.utils import no_init_parameters

from src.checkpoint import Checkpoint, load_weights, read_checkpoint
from src.config import Config
from src.config.schema import Data
from src.dataset.annotations import read_class_names
from src.dataset.resize import choose_canvas, scaling_of
from src.dataset.transforms import apply_to_image
from src.errors import UserError
from src.evaluation.detections import detections_of_image
from src.models import BACKBONE
from src.models.backbone import build_backbone
from src.models.faster_rcnn import FasterRCNN, InferenceForward, to_mixed_precision
from src.run.compile_cache import graph_name, stored_graph
from src.run.optional import use_kernels

logger = logging.getLogger("faster_rcnn")


def build_detector(cfg: Config, num_classes: int, norm: type = nn.BatchNorm2d, pretrained: bool = True) -> FasterRCNN:
    """Return a `FasterRCNN` initialised with cfg.seed, in mixed precision of cfg.mix_dtype if cfg.mix is True.

    Args:
        num_classes: K, without background.
        norm: class of the backbone's normalisation layers, which can be chosen only for mindcv's ResNets.
        pretrained: whether to load the backbone's weights that cfg.backbone.pretrained names. False is for a network whose
            weights come from a checkpoint or from another process.

    Raises:
        UserError: if the backbone cannot be built, or its weights cannot be read or do not fit.
    """
    ms.set_seed(cfg.seed)
    weights = read_pretrained(cfg.backbone.pretrained) if pretrained else False
    network = FasterRCNN(cfg, num_classes, build_backbone(cfg.backbone, norm, weights))
    # On the CPU, `use_kernels` applies mixed precision.
    return to_mixed_precision(network, getattr(ms, cfg.mix_dtype)) if cfg.mix and cfg.device_target != "CPU" else network


def build_empty_detector(cfg: Config, num_classes: int) -> FasterRCNN:
    """Return the network of `build_detector` without initial weights, which saves a second; the caller must set all of them."""
    try:
        with no_init_parameters():
            return build_detector(cfg, num_classes, pretrained=False)
    except RuntimeError:
        # Some mindcv networks, such as ConvNeXt, compute with their weights during construction.
        return build_detector(cfg, num_classes, pretrained=False)


def read_pretrained(setting: bool | str) -> bool | dict[str, np.ndarray]:
    """Return the setting `backbone.pretrained` if it is True or False, else {mindcv's name: array} of the file that it names.

    The file may also be a detector of this project or of the older MindSpore implementation; see `read_checkpoint` for errors.
    """
    if isinstance(setting, bool) or not setting:
        return bool(setting)
    try:
        weights = read_checkpoint(setting).weights
    except UserError as error:
        raise UserError(f"backbone.pretrained: {error}") from error
    return {name[len(BACKBONE):] if name.startswith(BACKBONE) else name: array for name, array in weights.items()}


def load_detector(cfg: Config) -> tuple[FasterRCNN, Checkpoint]:
    """Return the detector in the checkpoint cfg.checkpoint_path, with its number of classes, and the checkpoint.

    Raises:
        UserError: if the checkpoint cannot be read or does not fit the configuration.
    """
    checkpoint = read_checkpoint(cfg.checkpoint_path)
    network = build_empty_detector(cfg, checkpoint.num_classes)
    load_weights(network, checkpoint)
    return network, checkpoint


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
            names = read_class_names(os.path.join(os.path.expanduser(data.dataset_dir), data.val_anno_path))
        except UserError as error:
            logger.info("no class names from the annotations: %s", error)
    if len(names) == count:
        return names
    logger.warning("the names of the %d classes of %s are not known: set data.names; they are called class 0, ...", count, path)
    return [f"class {label}" for label in range(count)]


class Predictor:
    """Runs a detector. The graph of each canvas is compiled when its first images arrive."""

    def __init__(self, network: FasterRCNN, cfg: Config):
        self.network, self.cfg = network, cfg
        self.forwards = {canvas: use_kernels(InferenceForward(network, cfg, canvas), cfg) for canvas in cfg.data.canvases}

    def __call__(self, image: Tensor, valid_size: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes (B, R, K, 4) in canvas pixels and scores (B, R, K), float32.

        Args:
            image: (B, H, W, 3) uint8 RGB.
            valid_size: (B, 2) float32, height and width of each image on its canvas.
        """
        canvas = image.shape[1], image.shape[2]
        forward = self.forwards[canvas].set_train(False)
        with stored_graph(graph_name("inference", canvas)):
            boxes, scores = forward(image, valid_size)
        return boxes.asnumpy(), scores.asnumpy()

    def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
        """Detect objects on an image (h, w, 3) uint8 RGB of any size, like an evaluation with batch size 1.

        Returns:
            boxes (n, 4) float32 xyxy, pixels of the image; scores (n,) float32, descending; labels (n,) int64, 0..K-1; whether
            all scores of the network are finite.
        """
        transforms, canvases = self.cfg.data.eval_transforms.item_transforms, self.cfg.data.canvases
        number = choose_canvas((image.shape[0], image.shape[1]), canvases, scaling_of(transforms))
        canvas = np.empty((*canvases[number], 3), np.uint8)
        valid_size, scale = apply_to_image(transforms, image, canvas)
        boxes, scores = self(Tensor(canvas[None]), Tensor(valid_size[None]))
        found = detections_of_image(boxes[0], scores[0], self.cfg.infer, scale, np.array(image.shape[:2]))
        return (*found, bool(np.isfinite(scores[0]).all()))
