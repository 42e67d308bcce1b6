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

from src.run.files import prepare_output
from src.run.launch import launch
from tools.networks import DETECTOR, load_network, parse_conversion

logger = logging.getLogger("faster_rcnn")


def main(args: argparse.Namespace, *_) -> None:
    # Imported here because MindSpore reads the environment that `launch` prepares.
    from src.convert.torch_files import write_state
    from src.convert.torchvision_weights import to_torchvision
    from src.models import UNUSED

    prepare_output(args.output)
    network, checkpoint = load_network(args.config, args.input)
    weights = {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}
    weights.update((name, array) for name, array in checkpoint.weights.items() if name.startswith(UNUSED))
    state = to_torchvision(weights)
    write_state(args.output, state)
    logger.info("%s: %d tensors for torchvision's Faster R-CNN with %d classes, background first", args.output, len(state),
                len(state["roi_heads.box_predictor.cls_score.bias"]))


def parse_args() -> argparse.Namespace:
    return parse_conversion("Make a torchvision state dict of a checkpoint.", DETECTOR,
                            "state dict to write: .safetensors, or .pth with PyTorch")


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
