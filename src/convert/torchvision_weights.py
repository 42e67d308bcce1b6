"""Conversion of torchvision's ResNets and Faster R-CNN detectors to this project's parameter names, and back.

Only the names and the rows of the box head differ. In torchvision, the background is class 0. In this project, it is class K, the
last class, and has no box deltas. Rows of torchvision's box head that this project does not use are stored with the weights,
under names with the prefix UNUSED, so that the conversion back is exact.
"""
from __future__ import annotations

import re
from collections.abc import Collection, Iterable

import numpy as np

from src.errors import UserError
from src.models import CLASS_LAYERS, CLASSES, UNUSED

COUNTER = ".num_batches_tracked"  # end of the name of a tensor of torch.nn.BatchNorm2d
SCORES_OF_ALL = "roi_heads.box_predictor.cls_score.weight"
# Parts of parameter names: in this project, in current torchvision, and in older torchvision files if they differ.
RENAMES = (
    (r"^fpn\.lateral\.(\d+)\.norm\.", r"backbone.fpn.inner_blocks.\1.1.", None),
    (r"^fpn\.output\.(\d+)\.norm\.", r"backbone.fpn.layer_blocks.\1.1.", None),
    (r"^backbone\.stages\.", "backbone.body.", None),
    (r"\.down_sample\.", ".downsample.", None),
    (r"\.gamma$", ".weight", None),
    (r"\.beta$", ".bias", None),
    (r"\.moving_mean$", ".running_mean", None),
    (r"\.moving_variance$", ".running_var", None),
    (r"^classifier\.", "fc.", None),
    (r"^(fpn)\.lateral\.(\d+)\.(?:conv\.)?", r"backbone.\1.inner_blocks.\2.0.", r"backbone.\1.inner_blocks.\2."),
    (r"^(fpn)\.output\.(\d+)\.(?:conv\.)?", r"backbone.\1.layer_blocks.\2.0.", r"backbone.\1.layer_blocks.\2."),
    (r"^rpn_head\.conv\.", "rpn.head.conv.0.0.", "rpn.head.conv."),
    (r"^rpn_head\.conv2\.", "rpn.head.conv.1.0.", None),
    (r"^rpn_head\.objectness\.", "rpn.head.cls_logits.", None),
    (r"^rpn_head\.deltas\.", "rpn.head.bbox_pred.", None),
    (r"^box_head\.convs\.(\d+)\.conv\.", r"roi_heads.box_head.\1.0.", None),
    (r"^box_head\.convs\.(\d+)\.norm\.", r"roi_heads.box_head.\1.1.", None),
    (r"^box_head\.fc1\.", "roi_heads.box_head.fc6.", None),
    (r"^box_head\.fc2\.", "roi_heads.box_head.fc7.", None),
    (r"^box_head\.classes\.", "roi_heads.box_predictor.cls_score.", None),
    (r"^box_head\.deltas\.", "roi_heads.box_predictor.bbox_pred.", None),
)
# Ids from 1 to 90 that COCO's 80 categories do not use. torchvision's published detectors have rows for ids 0 to 90.
COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_ROWS = 91
# torchvision's ResNets by (number of blocks of each stage, whether the blocks are bottlenecks).
RESNETS = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}


def resnet_name(names: Iterable[str], path: str) -> str:
    """Return the ResNet that the parameter names of torchvision or this project belong to, `resnet18` to `resnet152`.

    Raises:
        UserError: the names belong to none of these ResNets.
    """
    blocks = {match.groups() for match in (re.search(r"(?:^|\.)layer([1-4])\.(\d+)\.", name) for name in names) if match}
    counts = tuple(sum(stage == wanted for stage, _ in blocks) for wanted in "1234")
    bottleneck = any(re.search(r"layer1\.0\.conv3\.", name) for name in names)
    if (counts, bottleneck) not in RESNETS:
        raise UserError(f"{path} is no ResNet of torchvision: its four stages have {list(counts)} blocks.")
    return RESNETS[counts, bottleneck]


def torchvision_names(names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the torchvision names of all parameters of a network of this project: name -> current name, then the name in older
    files if it differs."""
    # torchvision numbers the layers of a box head, unless it has two dense layers and nothing else.
    convs = sum(re.fullmatch(r"box_head\.convs\.\d+\.conv\.weight", name) is not None for name in names)
    numbers = {"fc6": convs + 1, "fc7": convs + 3} if convs or "box_head.fc2.weight" not in names else {}
    found = {}
    for name in names:
        today = older = name
        for pattern, new, old in RENAMES:
            today, older = re.sub(pattern, new, today), re.sub(pattern, old or new, older)
        for layer, number in numbers.items():
            today = today.replace(f"roi_heads.box_head.{layer}.", f"roi_heads.box_head.{number}.")
        found[name] = tuple(dict.fromkeys((today, older)))
    return found


def num_classes_of(state: dict, given: int | None, path: str) -> int:
    """Return K, the number of classes without background, of a torchvision detector; `given` is the setting `data.nc`.

    Raises:
        UserError: `state` is not the state dict of a detector, or K differs from `given`.
    """
    if SCORES_OF_ALL not in state:
        raise UserError(f"{path} has no tensor {SCORES_OF_ALL}: it is not a Faster R-CNN of torchvision.")
    rows = len(state[SCORES_OF_ALL])
    possible = (COCO_ROWS - 1 - len(COCO_GAPS), rows - 1) if rows == COCO_ROWS else (rows - 1,)
    if given is not None and given not in possible:
        raise UserError(f"{path} has {rows} classes with background, but data.nc is {given}.")
    return possible[0] if given is None else given


def from_torchvision(state: dict, shapes: dict, path: str) -> dict:
    """Convert a state dict of torchvision to weights of this project.

    Args:
        state: state dict, name -> array.
        shapes: shapes of this project's parameters, name -> shape.
        path: path of the state dict's file, for messages.

    Returns:
        dict of name -> array with every name of `shapes`, and names with the prefix UNUSED.

    Raises:
        UserError: a tensor is missing or unknown, or has another shape.
    """
    # BatchNorm that is not frozen counts its batches. This project does not need the number. Numbers without axes in a checkpoint
    # record the training progress.
    weights = {UNUSED + name: array.reshape(1) for name, array in state.items() if name.endswith(COUNTER)}
    left = {name: array for name, array in state.items() if not name.endswith(COUNTER)}
    rows = len(state.get(SCORES_OF_ALL, ()))
    names = torchvision_names(shapes)
    for name, shape in shapes.items():
        candidates = names[name]
        source = next((candidate for candidate in candidates if candidate in left), None)
        if source is None:
            raise UserError(f"{path} has no tensor {candidates[0]}, which becomes {name}.")
        array = left.pop(source)
        if name.startswith(CLASS_LAYERS):
            if len(array) != rows * (1 if name.startswith(CLASSES) else 4):
                raise UserError(f"{path}: tensor {source} has {len(array)} rows, which do not fit the {rows} classes of "
                                f"{SCORES_OF_ALL}.")
            places = _places(name, rows, shapes[CLASSES + "bias"][0] - 1)
            array, unused = array[places], np.delete(array, places, axis=0)
            if len(unused):
                weights[UNUSED + name] = unused
        if array.shape != tuple(shape):
            raise UserError(f"{path}: tensor {source} has shape {array.shape}, but {name} needs {tuple(shape)}.")
        weights[name] = array
    if left:
        raise UserError(f"{path} has tensor {next(iter(left))}, which this network does not.")
    return weights


def to_torchvision(weights: dict) -> dict:
    """Convert weights of this project, name -> array, to a state dict of torchvision, name -> array.

    UNUSED rows are restored at their original positions. Without them, the deltas of the background, which are never read, are 0.
    """
    names = torchvision_names(weights)
    state = {names[name][0]: _join(name, array, weights) if name.startswith(CLASS_LAYERS) else array
             for name, array in weights.items() if not name.startswith(UNUSED)}
    return state | {name.removeprefix(UNUSED): array.reshape(()) for name, array in weights.items() if name.endswith(COUNTER)}


def _places(name, rows, num_classes):
    """Return the indices of the torchvision rows that this project uses, in its order, for a layer of `rows` classes."""
    classes = [i for i in range(1, rows) if num_classes == rows - 1 or i not in COCO_GAPS]
    return [*classes, 0] if name.startswith(CLASSES) else [4 * i + side for i in classes for side in range(4)]


def _join(name, array, weights):
    """Return all torchvision rows of a class-dependent layer, including the unused rows."""
    numbers = 1 if name.startswith(CLASSES) else 4  # rows per class
    unused = weights.get(UNUSED + name, np.zeros((0 if numbers == 1 else 4, *array.shape[1:]), array.dtype))
    table = np.zeros((len(array) + len(unused), *array.shape[1:]), array.dtype)
    places = _places(name, len(table) // numbers, len(weights[CLASSES + "bias"]) - 1)
    table[places] = array
    table[np.delete(np.arange(len(table)), places)] = unused
    return table
