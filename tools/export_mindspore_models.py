"""Write weights for the older MindSpore implementation: python tools/export_mindspore_models.py IN OUT [--config FILE].

OUT has the names, order and format of that implementation's checkpoints. It loads with a ResNet-FPN configuration that has the
same number of classes. The outputs are the same if the model was trained with that implementation's settings; with other
settings it runs, but scores lower.
"""
import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.run.launch import launch
from tools.networks import DETECTOR, load_network, parse_conversion, prepare_checkpoint

logger = logging.getLogger("faster_rcnn")


def main(args: argparse.Namespace, *_) -> None:
    # Imported here because MindSpore reads the environment that `launch` prepares.
    from src.checkpoint import write_checkpoint
    from src.convert.mindspore_models import older_name

    prepare_checkpoint(args.output)
    network, checkpoint = load_network(args.config, args.input)
    tensors = {older_name(parameter.name): parameter for parameter in network.get_parameters()}
    write_checkpoint(args.output, tensors, checksum=False)
    logger.info("%s: %d tensors under the older MindSpore implementation's names, %d classes", args.output, len(tensors),
                checkpoint.num_classes)


def parse_args() -> argparse.Namespace:
    return parse_conversion("Write weights for the older MindSpore implementation.", DETECTOR,
                            "checkpoint to write, .ckpt: weights alone, without class names")


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
