"""Detect with torchvision's Faster R-CNN on the validation images of a data set: detect_torchvision.py DATA IN CONFIG OUT.

It needs torchvision, safetensors, pydantic and PyYAML, and no MindSpore. DATA is a folder with the layout of COCO2017. IN is a
state dict of tools/export_torchvision.py, .safetensors. CONFIG is the YAML file of the detector, with any ResNet. torchvision
scales each image by its transform's rule, to --shortest and --longest. OUT.npz contains the scaled images, rounded to 8 bits, and
torchvision's detections on them in pixels of the scaled image: image_0, boxes_0, scores_0, labels_0, image_1, ...
"""
import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.models.detection.transform import GeneralizedRCNNTransform

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src.config.load import load_config  # noqa: E402
from src.convert.torchvision_weights import SCORES_OF_ALL, resnet_name  # noqa: E402
from tests.helpers.parity.torchvision_network import build_network, options_of, to_tensor  # noqa: E402


def scaled_images(data, transform):
    """Yield each validation image as torchvision scales it, (h, w, 3) uint8."""
    for record in json.loads((data / "annotations/instances_val2017.json").read_text())["images"]:
        pixels = np.array(Image.open(data / "val2017" / record["file_name"]).convert("RGB"))
        scaled, _ = transform([torch.from_numpy(pixels).permute(2, 0, 1).float()])
        height, width = scaled.image_sizes[0]  # without padding
        yield scaled.tensors[0, :, :height, :width].round().clamp(0, 255).permute(1, 2, 0).byte().numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "source", "config", "target"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--shortest", type=int, default=128)
    parser.add_argument("--longest", type=int, default=213)
    args = parser.parse_args()
    state, settings = load_file(args.source), load_config(str(args.config)).model_dump()
    is_v2 = any("fpn" in name and name.endswith("running_mean") for name in state)
    network = build_network(resnet_name(state, args.source), is_v2, len(state[SCORES_OF_ALL]), **options_of(settings)).eval()
    network.load_state_dict(state)
    stored = {}
    transform = GeneralizedRCNNTransform(args.shortest, args.longest, image_mean=[0.0] * 3, image_std=[1.0] * 3).eval()
    for i, pixels in enumerate(scaled_images(args.data, transform)):
        with torch.no_grad():
            found = network([to_tensor(pixels)])[0]
        stored.update({f"image_{i}": pixels, f"boxes_{i}": found["boxes"], f"scores_{i}": found["scores"],
                       f"labels_{i}": found["labels"] - 1})
    np.savez(args.target, **{name: np.asarray(value) for name, value in stored.items()})
    sizes = {array.shape for name, array in stored.items() if name.startswith("image_")}
    detections = sum(len(value) for name, value in stored.items() if name.startswith("scores_"))
    print(f"{len(stored) // 4} images with {len(sizes)} scaled sizes, {detections} detections")


if __name__ == "__main__":
    main()
