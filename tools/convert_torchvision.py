"""Convert a torchvision state dict to a checkpoint: python tools/convert_torchvision.py IN OUT [--config FILE].

If IN is an ImageNet ResNet, use OUT as `backbone.pretrained`. If IN is a Faster R-CNN with a ResNet-FPN backbone, use OUT as
`--checkpoint_path` and `--weight`; it contains the settings that its results for an image depend on.
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.run.launch import launch
from tools.networks import parse_conversion, prepare_checkpoint


def main(args: argparse.Namespace, *_) -> None:
    # Imported here because MindSpore reads the environment that `launch` prepares.
    from src.convert.detectors import convert_torchvision

    prepare_checkpoint(args.output)
    convert_torchvision(args.input, args.output, args.config)


def parse_args() -> argparse.Namespace:
    return parse_conversion(
        "Make a checkpoint of a torchvision state dict.",
        "state dict of a ResNet or Faster R-CNN: .safetensors or .pth", "checkpoint to write, .ckpt",
        "YAML file of the detector to fill (default: faster_rcnn_resnet50_fpn_torchvision_coco.yml with the ResNet that IN has, "
        "with bn_eps 1e-5 unless the head has 91 rows). Of 91 rows, which is COCO's head, 80 classes stay unless data.nc is 90.")


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
