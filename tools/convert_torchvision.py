"""Convert a torchvision state dict to a checkpoint: python tools/convert_torchvision.py IN OUT [--config FILE].

If IN is an ImageNet ResNet, use OUT as `backbone.pretrained`. If IN is a Faster R-CNN with a ResNet-FPN backbone, use OUT as
`--checkpoint_path` and `--weight`; it contains the settings that its results for an image depend on.
"""
import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.run.launch import launch
from tools.networks import network_of, parse_conversion, prepare_checkpoint

logger = logging.getLogger("faster_rcnn")


def main(args: argparse.Namespace, *_) -> None:
    # Imported here because MindSpore reads the environment that `launch` prepares.
    from mindspore import Tensor

    from src.checkpoint import FOR_AN_IMAGE, texts_of, write_checkpoint
    from src.convert.torch_files import read_state
    from src.convert.torchvision_weights import from_torchvision

    prepare_checkpoint(args.output)
    state = read_state(args.input)
    network, cfg = network_of(args.config, state, args.input)
    weights = from_torchvision(state, {p.name: p.shape for p in network.get_parameters()}, args.input)
    write_checkpoint(args.output, {name: Tensor(array) for name, array in weights.items()},
                     texts_of(cfg.model_dump(include=FOR_AN_IMAGE)) if cfg else None)
    logger.info("%s: a %s, all %d tensors converted", args.input, type(network).__name__, len(state))


def parse_args() -> argparse.Namespace:
    return parse_conversion(
        "Make a checkpoint of a torchvision state dict.",
        "state dict of a ResNet or Faster R-CNN: .safetensors, or .pth with PyTorch", "checkpoint to write, .ckpt",
        "YAML file of the detector to fill (default: faster_rcnn_resnet50_fpn_torchvision_coco.yml with the ResNet that IN has, "
        "with bn_eps 1e-5 unless the head has 91 rows). Of 91 rows, which is COCO's head, 80 classes stay unless data.nc is 90.")


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
