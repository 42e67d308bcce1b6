"""The detector whose parts are run alone: its configuration, with weights and inputs that NumPy draws."""
from __future__ import annotations

import zlib

import numpy as np
from mindspore import Tensor, nn

from src.config import Config
from src.config.load import load_config
from src.detector import build_detector
from src.models.faster_rcnn import InferenceForward, TrainingForward
from src.run.distributed import ROOT

CONFIG = ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_1x.yml"
NUM_CLASSES = 3
# For the whole network, with a small backbone, as R50 is a part of its own. Every anchor and proposal is sampled and BatchNorm is
# fixed: so a proposal more or less, which rounding decides, changes a loss by its share alone.
SMALL = {"data.target_size": [128, 160], "batch_size": 2, "backbone.name": "det_resnet18", "backbone.frozen_bn": True,
         "rpn_head.train_proposal.post_nms_top_n": 200, "rpn_head.test_proposal.post_nms_top_n": 200,
         "rpn_head.rpn_label_assignment.rnp_sample_batch": 100_000,
         "rpn_head.rpn_label_assignment.fg_fraction": 1.0, "bbox_head.bbox_assigner.rois_per_batch": 100_000,
         "bbox_head.bbox_assigner.fg_fraction": 1.0}
LARGE = {"data.target_size": [768, 1280], "batch_size": 1}


def configuration(device_target: str, settings: dict) -> Config:
    """That of R50-FPN in fp32 with random weights, and `settings` by dotted name."""
    settings = {"device_target": device_target, "backbone.pretrained": False, "mix": False, **settings}
    return load_config(CONFIG, [(key, value, "tools/device_check") for key, value in settings.items()])


class Bench:
    """A detector with drawn weights on MindSpore's own operators, and inputs for it.

    Args:
        device_target: where it will run.
        settings: of the configuration, by dotted name.

    Attributes:
        cfg: the configuration.
        network: FasterRCNN.
        forward: its TrainingForward.
        canvas: (height, width) in pixels.
    """

    def __init__(self, device_target: str, settings: dict):
        self.cfg = configuration(device_target, settings)
        [self.canvas] = self.cfg.data.canvases
        self.network = build_detector(self.cfg, NUM_CLASSES, pretrained=False)
        draw_weights(self.network)
        self.forward = TrainingForward(self.network, self.cfg, NUM_CLASSES, self.canvas).set_train()

    def inference(self) -> nn.Cell:
        """The network's InferenceForward."""
        return InferenceForward(self.network, self.cfg, self.canvas).set_train(False)

    def level_shapes(self, channels: list[int], strides: list[int]) -> list[tuple[int, ...]]:
        """(B, C, H_i, W_i) of features by stride."""
        height, width = self.canvas
        batch = self.cfg.batch_size
        return [(batch, depth, -(-height // stride), -(-width // stride)) for depth, stride in zip(channels, strides)]


def draw_weights(network: nn.Cell) -> None:
    """Set every parameter to numbers drawn from its name, the same on any device and with any version of MindSpore."""
    for parameter in network.get_parameters():
        noise = uniform(rng_of(parameter.name), parameter.shape)
        kind = parameter.name.rpartition(".")[2]
        if parameter.ndim > 1:
            value = noise * np.float32(np.sqrt(3 / np.prod(parameter.shape[1:])))  # products as large as the factors
        else:
            value = {"gamma": 1 + noise / 10, "moving_variance": 1 + noise / 10}.get(kind, noise / 20)
            if kind == "gamma" and (".bn2." in parameter.name or ".bn3." in parameter.name):
                value = value / 5  # as in trained networks a residual is small: rounding does not grow from block to block
        parameter.set_data(Tensor(value))


def rng_of(name: str) -> np.random.Generator:
    """The generator of whatever is called `name`."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def uniform(rng: np.random.Generator, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """float32 between -scale and scale."""
    return (2 * rng.random(shape, np.float32) - 1) * np.float32(scale)


def distinct(rng: np.random.Generator, shape: tuple[int, int], scale: float = 1.0) -> np.ndarray:
    """float32 (B, N) between -scale and scale, no two in a row alike: their order is the same everywhere."""
    ranks = np.stack([rng.permutation(shape[1]) for _ in range(shape[0])])
    return ((2 * ranks / shape[1] - 1) * scale).astype(np.float32)


def priorities(rng: np.random.Generator, batch: int, number: int) -> np.ndarray:
    """Sampling priorities (B, N) float32, see `src.models.matcher.subsample`."""
    return np.stack([rng.permutation(number) for _ in range(batch)]).astype(np.float32)


def boxes_in(rng: np.random.Generator, canvas: tuple[int, int], batch: int, number: int) -> np.ndarray:
    """Boxes (B, N, 4) float32 xyxy pixels of many sizes within a canvas (height, width)."""
    size = np.array(canvas[::-1], np.float64)
    sides = size * np.exp(rng.uniform(np.log(0.03), np.log(0.7), (batch, number, 2)))
    corner = rng.uniform(0, 1, sides.shape) * (size - sides)
    return np.concatenate((corner, corner + sides), 2).astype(np.float32)


def annotated_boxes(rng: np.random.Generator, bench: Bench, number: int = 8, padded: int = 32) -> tuple[np.ndarray, ...]:
    """Boxes (B, G, 4), labels (B, G) and mask (B, G): the first box is the whole canvas, so that anything overlaps some box."""
    batch, (height, width) = bench.cfg.batch_size, bench.canvas
    boxes, labels = np.zeros((batch, padded, 4), np.float32), np.zeros((batch, padded), np.int32)
    boxes[:, :number] = boxes_in(rng, bench.canvas, batch, number)
    boxes[:, 0] = 0, 0, width, height
    labels[:, :number] = rng.integers(0, NUM_CLASSES, (batch, number))
    return boxes, labels, np.tile(np.arange(padded) < number, (batch, 1))
