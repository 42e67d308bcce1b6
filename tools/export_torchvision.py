"""Convert a checkpoint to a torchvision state dict: python tools/export_torchvision.py IN OUT [--config FILE].

OUT loads into torchvision's Faster R-CNN with K + 1 classes, background first (91 if the checkpoint was converted from
torchvision's published detector). The outputs are the same if the model was trained with
config/faster_rcnn/faster_rcnn_resnet50_fpn_torchvision.yml. With another configuration it runs, but scores lower.
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
    from src.checkpoint import load_weights, read_checkpoint
    from src.convert.torch_files import write_state
    from src.convert.torchvision_weights import to_torchvision
    from src.detector import build_detector
    from src.models import UNUSED
    from src.run.files import prepare_output
    from tools.networks import config_of

    prepare_output(args.output)
    checkpoint = read_checkpoint(args.input)
    num_classes = checkpoint.num_classes
    network = build_detector(config_of(args.config, checkpoint.weights, args.input), num_classes)
    load_weights(network, checkpoint)
    weights = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    weights.update((name, array) for name, array in checkpoint.weights.items() if name.startswith(UNUSED))
    state = to_torchvision(weights)
    write_state(args.output, state)
    logger.info("%s: %d tensors for torchvision's Faster R-CNN with %d classes, background first", args.output, len(state),
                len(state["roi_heads.box_predictor.cls_score.bias"]))


def parse_args():
    parser = argparse.ArgumentParser(description="Make a torchvision state dict of a checkpoint.", allow_abbrev=False)
    parser.add_argument("input", metavar="IN", help="checkpoint of a detector with a ResNet-FPN backbone")
    parser.add_argument("output", metavar="OUT", help="state dict to write: .safetensors, or .pth with PyTorch")
    parser.add_argument("--config", metavar="FILE",
                        help="YAML file that the checkpoint was trained with (default: "
                             "faster_rcnn_resnet50_fpn_torchvision.yml with the ResNet that IN has)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
