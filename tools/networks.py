"""Code shared by the tools that convert weights: their arguments, the network of a weights file, and the path of a checkpoint.

MindSpore is imported in functions, because it reads the environment that `launch` prepares.
"""
from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from src.errors import UserError
from src.run.files import prepare_output

if TYPE_CHECKING:
    from mindspore import nn

    from src.checkpoint import Checkpoint

DETECTOR = "checkpoint of a detector with a ResNet-FPN backbone"
TRAINED_WITH = ("YAML file that the checkpoint was trained with (default: faster_rcnn_resnet50_fpn_torchvision_coco.yml or "
                "faster_rcnn_resnet50_fpn_v2.yml, with the ResNet that IN has)")


def parse_conversion(description: str, source: str, target: str, config: str = TRAINED_WITH) -> argparse.Namespace:
    """Return the arguments input, output and config of a tool with this description and these help texts."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("input", metavar="IN", help=source)
    parser.add_argument("output", metavar="OUT", help=target)
    parser.add_argument("--config", metavar="FILE", help=config)
    return parser.parse_args()


def prepare_checkpoint(path: str) -> None:
    """Create the folder of a checkpoint, and raise a UserError if the checkpoint cannot be written or does not end with .ckpt."""
    if not path.endswith(".ckpt"):
        raise UserError(f"the checkpoint to write is {path!r}; its name must end with .ckpt.")
    prepare_output(path)


def load_network(config: str | None, path: str) -> tuple[nn.Cell, Checkpoint]:
    """Return the detector of a checkpoint with its weights, see `config_of`, and the checkpoint."""
    from src.checkpoint import load_weights, read_checkpoint
    from src.convert.detectors import config_of
    from src.detector import build_detector

    checkpoint = read_checkpoint(path)
    num_classes = checkpoint.num_classes  # raises a UserError if it is not a detector
    network = build_detector(config_of(config, checkpoint.weights, path), num_classes)
    load_weights(network, checkpoint)
    return network, checkpoint
