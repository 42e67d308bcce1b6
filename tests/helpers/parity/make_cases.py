"""Create cases.npz with torchvision: python -m tests.helpers.parity.make_cases OUT.

Needs torch and torchvision (made with 0.28.0).

For each case it stores the losses of three SGD steps in which all anchors and proposals are sampled, the gradient norms of the
first step, and the detections before training.
"""
import sys

import numpy as np
import torch
from torchvision.models import resnet50
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.misc import FrozenBatchNorm2d

from tests.helpers.parity.cases import CASES, LEARNING_RATE, annotations_of, draw_tensor, images_of

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")


def build(num_classes, salt, size):
    backbone = _resnet_fpn_extractor(resnet50(norm_layer=FrozenBatchNorm2d), 3)
    network = FasterRCNN(backbone, num_classes + 1, min_size=min(size), max_size=max(size), rpn_post_nms_top_n_train=1000,
                         rpn_batch_size_per_image=10**6, rpn_positive_fraction=1.0, box_batch_size_per_image=10**6,
                         box_positive_fraction=1.0)
    state = {name: torch.from_numpy(draw_tensor(name, tuple(tensor.shape), salt))
             for name, tensor in network.state_dict().items()}
    network.load_state_dict(state)
    return network


def run(name):
    num_classes, salt, size, _ = CASES[name]
    network = build(num_classes, salt, size)
    images = [torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 for pixels in images_of(name)]
    targets = [{"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels) + 1}
               for boxes, labels in annotations_of(name)]
    stored = {}
    network.eval()
    with torch.no_grad():
        for i, found in enumerate(network(images)):
            stored.update({f"boxes_{i}": found["boxes"], f"scores_{i}": found["scores"], f"labels_{i}": found["labels"] - 1})
    network.train()
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
    stored.update(names=np.array(list(trained)), losses=np.array(losses))
    return {f"{name}/{key}": np.asarray(value) for key, value in stored.items()}


if __name__ == "__main__":
    arrays = {}
    for case in CASES:
        arrays.update(run(case))
        print(case, arrays[f"{case}/losses"], len(arrays[f"{case}/scores_0"]), "detections on the first image")
    np.savez_compressed(sys.argv[1], **arrays)
