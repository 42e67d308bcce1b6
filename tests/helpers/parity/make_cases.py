"""Create cases.npz with torchvision: python -m tests.helpers.parity.make_cases OUT.

Needs torch and torchvision (made with 0.28.0).

For each case it stores the losses of three SGD steps in which all anchors and proposals are sampled, the gradient norms of the
first step, the detections before training, and the norms of BatchNorm's statistics after it.
"""
import sys

import numpy as np
import torch
from torch import nn
from torchvision import models
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, RPNHead
from torchvision.ops.misc import FrozenBatchNorm2d

from tests.helpers.parity.cases import (
    CASES,
    LEARNING_RATE,
    V2_PROPOSALS,
    annotations_of,
    draw_tensor,
    images_of,
    last_norm,
    v2_resnet,
)

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")


def build(name):
    num_classes, salt, size, _ = CASES[name]
    resnet, parts, proposals, norm = v2_resnet(name), {}, 1000, None
    if resnet:
        proposals, norm = V2_PROPOSALS, nn.BatchNorm2d
        parts = {"rpn_head": RPNHead(256, 3, conv_depth=2),
                 "box_head": FastRCNNConvFCHead((256, 7, 7), [256] * 4, [1024], norm_layer=norm)}
    body = getattr(models, resnet or "resnet50")(norm_layer=norm or FrozenBatchNorm2d)
    network = FasterRCNN(_resnet_fpn_extractor(body, 3, norm_layer=norm), num_classes + 1, **parts, min_size=min(size),
                         max_size=max(size), rpn_post_nms_top_n_train=proposals, rpn_batch_size_per_image=10**6,
                         rpn_positive_fraction=1.0, box_batch_size_per_image=10**6, box_positive_fraction=1.0)
    network.load_state_dict({key: torch.from_numpy(draw_tensor(key, tuple(tensor.shape), salt, last_norm(resnet)))
                             if tensor.ndim else tensor
                             for key, tensor in network.state_dict().items()})
    return network


def run(name):
    network = build(name)
    images = [torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 for pixels in images_of(name)]
    targets = [{"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels) + 1}
               for boxes, labels in annotations_of(name)]
    stored = {}
    network.eval()
    with torch.no_grad():
        for i, found in enumerate(network(images)):
            stored.update({f"boxes_{i}": found["boxes"], f"scores_{i}": found["scores"], f"labels_{i}": found["labels"] - 1})
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()  # here, BatchNorm of frozen stages uses its stored statistics
    trained = {key: value for key, value in network.named_parameters() if value.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=LEARNING_RATE, momentum=0.9, weight_decay=1e-4)
    losses = []
    for step in range(3):
        parts = network(images, targets)
        optimizer.zero_grad()
        sum(parts.values()).backward()
        if step == 0:
            stored["norms"] = np.array([value.grad.double().norm().item() for value in trained.values()])
        optimizer.step()
        losses.append([parts[key].item() for key in LOSSES])
    statistics = {key: value.double().norm().item() for key, value in network.state_dict().items()
                  if ".running_" in key and v2_resnet(name)}
    stored.update(names=np.array(list(trained)), losses=np.array(losses), statistics=np.array(list(statistics.values())),
                  statistics_names=np.array(list(statistics), dtype=str))
    return {f"{name}/{key}": np.asarray(value) for key, value in stored.items()}


if __name__ == "__main__":
    arrays = {}
    for case in CASES:
        arrays.update(run(case))
        print(case, arrays[f"{case}/losses"], len(arrays[f"{case}/scores_0"]), "detections on the first image")
    np.savez_compressed(sys.argv[1], **arrays)
