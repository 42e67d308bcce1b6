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

logger = logging.getLogger("faster_rcnn")


def main(args, *_):
    # Imported here because MindSpore reads the environment that `launch` prepares.
    from src.checkpoint import load_weights, read_checkpoint, write_checkpoint
    from src.convert.mindspore_models import older_name
    from src.detector import build_detector
    from tools.networks import config_of, prepare_checkpoint

    prepare_checkpoint(args.output)
    checkpoint = read_checkpoint(args.input)
    network = build_detector(config_of(args.config, checkpoint.weights, args.input), checkpoint.num_classes)
    load_weights(network, checkpoint)
    tensors = {older_name(parameter.name): parameter for parameter in network.get_parameters()}
    write_checkpoint(args.output, tensors, checksum=False)
    logger.info("%s: %d tensors under the older MindSpore implementation's names, %d classes", args.output, len(tensors),
                checkpoint.num_classes)


def parse_args():
    parser = argparse.ArgumentParser(description="Write weights for the older MindSpore implementation.", allow_abbrev=False)
    parser.add_argument("input", metavar="IN", help="checkpoint of a detector with a ResNet-FPN backbone")
    parser.add_argument("output", metavar="OUT", help="checkpoint to write, .ckpt: weights alone, without class names")
    parser.add_argument("--config", metavar="FILE",
                        help="YAML file that the checkpoint was trained with (default: the layers of "
                             "faster_rcnn_resnet50_fpn_torchvision.yml with the ResNet that IN has)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
