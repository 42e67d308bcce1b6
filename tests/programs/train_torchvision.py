"""Train torchvision's Faster R-CNN on this project's batches: train_torchvision.py BATCHES IN OUT [--v2].

It needs torchvision and safetensors, and no other part of this project. BATCHES is the file of store_batches.py. IN and OUT are
state dicts, .safetensors. The network, the batches, the learning rate of each step, momentum, weight decay and the frozen parts
are as in this project. torchvision computes the losses and samples anchors and RoIs. torch.optim.SGD updates the weights.
"""
import argparse
import json
import time

import numpy as np
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops.misc import FrozenBatchNorm2d


class OnCanvas(GeneralizedRCNNTransform):
    """Normalises images that are already scaled, and pads them to `canvas` (height, width)."""

    def __init__(self, canvas):
        super().__init__(min(canvas), max(canvas), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        self.canvas = canvas

    def resize(self, image, target=None):
        return image, target

    def batch_images(self, images, size_divisible=32):
        batch = images[0].new_zeros((len(images), 3, *self.canvas))
        for image, place in zip(images, batch):
            place[:, :image.shape[1], :image.shape[2]] = image
        return batch


def build_network(settings, num_classes, canvas, is_v2):
    """Return the network of fasterrcnn_resnet50_fpn or fasterrcnn_resnet50_fpn_v2 with the settings of this project. The stem and
    the first stage are frozen. BatchNorm is frozen in the first network, and trained in the second."""
    rpn, head = settings["rpn_head"], settings["bbox_head"]["bbox_assigner"]
    anchors = rpn["anchor_generator"]
    parts = {"rpn_head": RPNHead(256, len(anchors["aspect_ratios"]), conv_depth=2),
             "box_head": FastRCNNConvFCHead((256, 7, 7), [256] * 4, [1024], norm_layer=nn.BatchNorm2d)} if is_v2 else {}
    body = getattr(torchvision.models, settings["backbone"]["name"].replace("det_", ""))
    body = body(norm_layer=nn.BatchNorm2d if is_v2 else FrozenBatchNorm2d)
    network = FasterRCNN(
        _resnet_fpn_extractor(body, 3, norm_layer=nn.BatchNorm2d if is_v2 else None), num_classes, **parts,
        rpn_anchor_generator=AnchorGenerator(tuple(map(tuple, anchors["anchor_sizes"])), (tuple(anchors["aspect_ratios"]),) * 5),
        rpn_batch_size_per_image=rpn["rpn_label_assignment"]["rnp_sample_batch"],
        rpn_positive_fraction=rpn["rpn_label_assignment"]["fg_fraction"],
        rpn_pre_nms_top_n_train=rpn["train_proposal"]["pre_nms_top_n"],
        rpn_post_nms_top_n_train=rpn["train_proposal"]["post_nms_top_n"],
        box_batch_size_per_image=head["rois_per_batch"], box_positive_fraction=head["fg_fraction"])
    network.transform = OnCanvas(canvas)
    return network


def set_train(network):
    """Set the training mode. BatchNorm of frozen parts uses its stored statistics."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()


def samples_of(batches, step):
    """Return images (3, h, w) in 0..1 and targets of a batch, in torchvision's format."""
    images, targets = [], []
    for row in range(batches["image"].shape[1]):
        height, width = batches["valid_size"][step, row].astype(int)
        image = torch.from_numpy(batches["image"][step, row, :height, :width])
        images.append(image.permute(2, 0, 1).float() / 255)
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
    network = build_network(settings, len(state["roi_heads.box_predictor.cls_score.bias"]), batches["image"].shape[2:4], args.v2)
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
