"""Create the stored results of torchvision: python -m tests.helpers.parity.make_cases FOLDER.

It needs torch and torchvision (made with 0.28.0), and writes to FOLDER, for the tests in tests/integration/parity:
- cases.npz: for each case, the losses of three SGD steps in which all anchors and proposals are sampled, the gradient norms of
  the first step, the detections before training, and the norms of BatchNorm's statistics after it.
- a file for each entry of PHOTOGRAPHS: values of all layers for two photographs, for the first network also its detections and
  three training steps. The photographs and their boxes are read from the existing file of the first network.
"""
import sys
from pathlib import Path

import numpy as np
import torch

from tests.helpers.parity.cases import (
    CASES,
    FIRST_NETWORK,
    LEARNING_RATE,
    PHOTOGRAPHS,
    V2_PROPOSALS,
    annotations_of,
    images_of,
    photographs_of,
    stored_arrays,
    v2_resnet,
)
from tests.helpers.parity.torchvision_network import build_drawn, set_train, to_tensor

LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
FIRST = 64  # number of proposals per photograph whose pooled features are stored
AFTER = ("rpn.head.conv.0.0.weight", "roi_heads.box_head.fc7.weight", "backbone.body.layer2.0.conv2.weight",
         "backbone.fpn.inner_blocks.0.0.weight")  # weights that are stored after three steps


def detections(network, images):
    """Return boxes, scores and classes without background, named by image."""
    stored = {}
    with torch.no_grad():
        for i, found in enumerate(network(images)):
            stored.update({f"boxes_{i}": found["boxes"], f"scores_{i}": found["scores"], f"labels_{i}": found["labels"] - 1})
    return stored


def train(network, images, annotations, learning_rate):
    """Train for three steps; return the losses (3, 4), names of the trained weights, and gradient norms of the first step."""
    targets = [{"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels) + 1} for boxes, labels in annotations]
    set_train(network)
    trained = {key: value for key, value in network.named_parameters() if value.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=learning_rate, momentum=0.9, weight_decay=1e-4)
    losses, norms = [], None
    for _ in range(3):
        parts = network(images, targets)
        optimizer.zero_grad()
        sum(parts.values()).backward()
        if norms is None:
            norms = np.array([value.grad.double().norm().item() for value in trained.values()])
        optimizer.step()
        losses.append([parts[key].item() for key in LOSSES])
    return np.array(losses), np.array(list(trained)), norms


def of_case(name):
    """Return the arrays of a case, with the case as a prefix of their names."""
    num_classes, salt, size, _ = CASES[name]
    resnet = v2_resnet(name)
    network = build_drawn(resnet, num_classes, salt, size, V2_PROPOSALS if resnet else 1000)
    images = [to_tensor(pixels) for pixels in images_of(name)]
    stored = detections(network, images)
    stored["losses"], stored["names"], stored["norms"] = train(network, images, annotations_of(name), LEARNING_RATE)
    statistics = {key: value.double().norm().item() for key, value in network.state_dict().items()
                  if ".running_" in key and resnet}
    stored.update(statistics=np.array(list(statistics.values())), statistics_names=np.array(list(statistics), dtype=str))
    return {f"{name}/{key}": value for key, value in stored.items()}


def values_of(network, pixels):
    """Return values of every layer from the images to the box head's outputs, most of them subsampled."""
    stored, (images, _) = {}, network.transform(pixels)
    with torch.no_grad():
        features = network.backbone(images.tensors)
        levels = list(features.values())
        stored.update((f"feature_{key}", value[:, ::32, ::4, ::4]) for key, value in features.items())
        for i, (logits, deltas) in enumerate(zip(*network.rpn.head(levels))):
            stored[f"rpn_logits_{i}"], stored[f"rpn_deltas_{i}"] = logits[:, :, ::2, ::2], deltas[:, :, ::4, ::4]
        anchors = network.rpn.anchor_generator(images, levels)[0]
        proposals, _ = network.rpn(images, features)
        first = [boxes[:FIRST] for boxes in proposals]
        pooled = network.roi_heads.box_roi_pool(features, first, images.image_sizes)
        logits, deltas = network.roi_heads.box_predictor(network.roi_heads.box_head(pooled))
    stored.update((f"proposals_{i}", boxes) for i, boxes in enumerate(proposals))
    return {**stored, "anchors_every_97th": anchors[::97], "num_anchors": len(anchors), "pooled_first64": pooled[:, ::32],
            "class_logits_first64": logits, "box_deltas_first64": deltas}


def of_photographs(name):
    """Return the arrays of an entry of PHOTOGRAPHS."""
    resnet, num_classes, salt, canvas, _ = PHOTOGRAPHS[name]
    network = build_drawn(resnet, num_classes, salt, canvas)
    images = [to_tensor(pixels) for pixels in photographs_of(name)]
    stored = {"num_classes": num_classes, "salt": salt, **values_of(network, images)}
    if name == FIRST_NETWORK:
        inputs = {key: array for key, array in stored_arrays(name).items() if key == "image" or key.startswith("gt_")}
        stored.update(inputs, **{f"det_{key}": value for key, value in detections(network, images).items()})
        annotations = [(inputs[f"gt_boxes_{i}"], inputs[f"gt_labels_{i}"]) for i in range(2)]
        losses, stored["grad_names"], stored["grad_norms"] = train(network, images, annotations, 0.001)
        stored.update((f"loss_step{step}", row) for step, row in enumerate(losses))
        stored.update((f"after_{key}", network.state_dict()[key].flatten()[::997]) for key in AFTER)
    return stored


def main():
    folder = Path(sys.argv[1])
    files = {name: of_photographs(name) for name in PHOTOGRAPHS}
    files["cases"] = {key: value for name in CASES for key, value in of_case(name).items()}
    for name, arrays in files.items():
        np.savez_compressed(folder / f"{name}.npz", **{key: np.asarray(value) for key, value in arrays.items()})


if __name__ == "__main__":
    main()
