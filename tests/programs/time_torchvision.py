"""Times a Faster R-CNN of torchvision on the CPU, on the images of tools/benchmark.py: python tests/programs/time_torchvision.py
--network fasterrcnn_resnet50_fpn_v2. It needs torch, torchvision and NumPy, and nothing of this project.

The second stage gets 1,000 random boxes per image instead of the RPN's proposals: with random weights, the RPN leaves only a few.
"""
import argparse
import json
import resource
import statistics
import time

import numpy as np
import torch
from torchvision.models import detection, resnet50
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.misc import FrozenBatchNorm2d

BOXES, PROPOSALS = 6, 1000  # per image


def build(name, height, width, classes):
    """Return the network with random weights and frozen stem and first stage. BatchNorm of the first network is frozen."""
    options = {"min_size": min(height, width), "max_size": max(height, width), "rpn_post_nms_top_n_train": PROPOSALS,
               "rpn_post_nms_top_n_test": PROPOSALS, "num_classes": classes + 1}
    if name == "fasterrcnn_resnet50_fpn":
        return detection.FasterRCNN(_resnet_fpn_extractor(resnet50(norm_layer=FrozenBatchNorm2d), 3), **options)
    network = detection.fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, **options)
    for part in (network.backbone.body.conv1, network.backbone.body.bn1, network.backbone.body.layer1):
        part.requires_grad_(False)
    return network


def inputs(batch, height, width, classes):
    """Return the images (3, height, width) float32 and the targets of `noise_batch` in tools/benchmarking/measure.py."""
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.standard_normal((3, height, width)).astype(np.float32)) for _ in range(batch)]
    targets = []
    for _ in range(batch):
        corner = rng.uniform(0, [width * .6, height * .6], (BOXES, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(20, [width * .4, height * .4], (BOXES, 2))], axis=1)
        targets.append({"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.arange(BOXES) % classes + 1})
    return [image.clamp(0, 1) for image in images], targets


def use_random_proposals(network, height, width):
    """The RPN runs as before, but its proposals are replaced."""
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, [width * .8, height * .8], (PROPOSALS, 2))
    boxes = np.concatenate([corner, np.minimum(corner + rng.uniform(8, [width * .5, height * .5], (PROPOSALS, 2)),
                                               [width, height])], axis=1)
    proposals, original = torch.tensor(boxes, dtype=torch.float32), network.rpn.filter_proposals

    def replaced(*arguments):
        found, scores = original(*arguments)
        return [proposals] * len(found), scores
    network.rpn.filter_proposals = replaced


def median_seconds(run, steps):
    """Return the median seconds of `steps` calls, after one warm-up call."""
    seconds = []
    for _ in range(1 + steps):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="fasterrcnn_resnet50_fpn",
                        choices=["fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2"])
    parser.add_argument("--height", type=int, default=768)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="torch.autocast in bfloat16")
    parser.add_argument("--json", required=True)
    args = parser.parse_args()
    torch.manual_seed(0)
    network = build(args.network, args.height, args.width, args.classes)
    use_random_proposals(network, args.height, args.width)
    images, targets = inputs(args.batch, args.height, args.width, args.classes)
    optimizer = torch.optim.SGD([weight for weight in network.parameters() if weight.requires_grad], 0.0, 0.9, weight_decay=1e-4)

    def train():
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            loss = sum(network(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def predict():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            network(images)
    network.train()
    results = {"train_step_s": median_seconds(train, args.steps)}
    results["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    network.eval()
    results["predict_s"] = median_seconds(predict, args.steps)
    with open(args.json, "w", encoding="utf-8") as file:
        json.dump(results, file)
    print(results)


if __name__ == "__main__":
    main()
