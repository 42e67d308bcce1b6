"""Train torchvision's Faster R-CNN on this project's batches: train_torchvision.py BATCHES IN OUT [--v2].

It needs torchvision and safetensors, and no MindSpore. BATCHES is the file of store_batches.py. IN and OUT are state dicts,
.safetensors. The network, the batches, the learning rate of each step, momentum, weight decay and the frozen parts are as in this
project. torchvision computes the losses and samples anchors and RoIs. torch.optim.SGD updates the weights.
"""
import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.helpers.parity.torchvision_network import build_network, options_of, set_train, to_tensor  # noqa: E402


def samples_of(batches, step):
    """Return images (3, h, w) in 0..1 and targets of a batch, in torchvision's format."""
    images, targets = [], []
    for row in range(batches["image"].shape[1]):
        height, width = batches["valid_size"][step, row].astype(int)
        images.append(to_tensor(batches["image"][step, row, :height, :width]))
        mask = batches["mask"][step, row]
        boxes, labels = (torch.from_numpy(batches[name][step, row, mask]) for name in ("boxes", "labels"))
        targets.append({"boxes": boxes, "labels": labels.long() + 1})
    return images, targets


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("batches", "source", "target"):
        parser.add_argument(name)
    parser.add_argument("--v2", action="store_true")
    args = parser.parse_args()
    batches = dict(np.load(args.batches))
    settings, state = json.loads(str(batches["settings"])), load_file(args.source)
    torch.manual_seed(settings["seed"])
    network = build_network(settings["backbone"]["name"].replace("det_", ""), args.v2,
                            len(state["roi_heads.box_predictor.cls_score.bias"]), batches["image"].shape[2:4],
                            **options_of(settings))
    network.load_state_dict(state)
    set_train(network)
    optimizer = torch.optim.SGD([weight for weight in network.parameters() if weight.requires_grad], 0.0,
                                settings["optimizer"]["momentum"], weight_decay=settings["optimizer"]["weight_decay"])
    start = time.perf_counter()
    for step, rate in enumerate(batches["rates"].tolist()):
        optimizer.param_groups[0]["lr"] = rate
        losses = network(*samples_of(batches, step))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        if step % settings["log_interval"] == 0:
            terms = "  ".join(f"{name} {loss.item():.4f}" for name, loss in losses.items())
            print(f"step {step} of {len(batches['rates'])}  {terms}  {time.perf_counter() - start:.0f} s", flush=True)
    save_file(network.state_dict(), args.target)


if __name__ == "__main__":
    main()
