"""Compare this project's detections with torchvision's on the same pixels: compare_detections.py STORED CHECKPOINT CONFIG.

STORED is the file of detect_torchvision.py, and CHECKPOINT has the same weights. CONFIG is the YAML file of the detector, with
any ResNet. As in torchvision, each image is padded to multiples of 32. Two detections are equal if their class is the same, their
IoU is above 0.99, and their scores differ by less than 0.001. The exit status is 1 if less than 97% of the detections of either
program are equal.
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src.run.environment import set_environment  # noqa: E402

set_environment()  # before MindSpore is imported

import numpy as np  # noqa: E402
from mindspore import Tensor  # noqa: E402

from src.checkpoint import read_checkpoint  # noqa: E402
from src.config import load_config, with_settings  # noqa: E402
from src.convert.torchvision_weights import resnet_name  # noqa: E402
from src.detector import Predictor  # noqa: E402
from src.evaluation.detections import select_detections  # noqa: E402
from src.export.detector import load_detector  # noqa: E402
from src.run.device import set_up_device  # noqa: E402
from src.run.distributed import SingleProcess  # noqa: E402
from tests.helpers.parity.comparison import has_equal_detection  # noqa: E402

WANTED = 0.97


def detect(predictor, image):
    """Return boxes, scores and classes of an image (h, w, 3) uint8, padded at the right and at the bottom."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % 32), (0, -width % 32), (0, 0)))
    boxes, scores = predictor(Tensor(padded[None]), Tensor(np.float32([[height, width]])))
    infer = predictor.cfg.infer
    return select_detections(boxes[0], scores[0], infer.conf_threshold, infer.nms_threshold, infer.max_box_num)


def number_of_equals(found, expected):
    """Return how many expected detections have an equal one."""
    return int(has_equal_detection(found, expected, overlap=0.99, score=1e-3).sum()) if len(expected[0]) else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("stored", "checkpoint", "config"):
        parser.add_argument(name)
    args = parser.parse_args()
    stored = dict(np.load(args.stored))
    images = [stored[f"image_{i}"] for i in range(sum(name.startswith("image_") for name in stored))]
    canvases = sorted({tuple(-(-side // 32) * 32 for side in image.shape[:2]) for image in images})
    # Compiling a graph for each canvas takes longer than PyNative mode.
    checkpoint = read_checkpoint(args.checkpoint)
    cfg = with_settings(load_config(args.config), {
        "backbone.name": f"det_{resnet_name(checkpoint.weights, checkpoint.path)}", "data.target_size": list(map(list, canvases)),
        "mix": False, "ms_mode": 1, "device_target": "CPU"})
    cfg = set_up_device(cfg, SingleProcess())
    predictor = Predictor(load_detector(cfg, checkpoint), cfg)
    equal, totals = np.zeros(2, int), np.zeros(2, int)  # this project's detections, and torchvision's
    for i, image in enumerate(images):
        both = detect(predictor, image), [stored[f"{name}_{i}"] for name in ("boxes", "scores", "labels")]
        equal += [number_of_equals(both[1], both[0]), number_of_equals(both[0], both[1])]
        totals += [len(both[0][0]), len(both[1][0])]
    print(f"{len(images)} images of {len({image.shape for image in images})} sizes on {len(canvases)} canvases: equal are "
          f"{equal[0]} of {totals[0]} detections of this project, {equal[1]} of {totals[1]} of torchvision")
    return int((equal < WANTED * totals).any() or not totals.all())


if __name__ == "__main__":
    sys.exit(main())
