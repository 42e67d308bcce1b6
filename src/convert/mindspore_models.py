"""Checkpoints of the older MindSpore implementation (official/cv/RCNN of mindspore-lab/models): its names and this project's.

Only names differ. In both, the background is the last of K + 1 classes, each of the K classes has four deltas, and the rows of
the RPN are the anchors of a cell, by aspect ratio where a level has one anchor size.
"""
from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np

from src.errors import UserError
from src.models.parameter_names import MOMENTS

logger = logging.getLogger("faster_rcnn")

# How the names of a layer's parameters begin: here, and there.
LAYERS = (
    ("backbone.stages.", "backbone.bottom_up."),
    *((f"fpn.lateral.{i}.", f"backbone.lateral_convs.{i}.conv.0.") for i in range(4)),
    *((f"fpn.output.{i}.", f"backbone.fpn_convs.{i}.conv.0.") for i in range(4)),
    ("rpn_head.conv.", "rpn_head.rpn_feat.rpn_conv."),
    ("rpn_head.objectness.", "rpn_head.rpn_feat.rpn_rois_score."),
    ("rpn_head.deltas.", "rpn_head.rpn_feat.rpn_rois_delta."),
    ("box_head.fc1.", "bbox_head.head.fc6."),
    ("box_head.fc2.", "bbox_head.head.fc7."),
    ("box_head.classes.", "bbox_head.bbox_cls."),
    ("box_head.deltas.", "bbox_head.bbox_delta."),
)
TO_THERE, TO_HERE = dict(LAYERS), {there: here for here, there in LAYERS}
# Its trainer saves itself with the network: MindSpore's momentum optimizer and loss scale, which add these to the weights.
TRAINER_STATE = {"learning_rate", "momentum", "global_step", "scale_sense"}


def _renamed(name, layers):
    """The name with its beginning replaced, or None where no layer begins so."""
    return next((new + name[len(old):] for old, new in layers.items() if name.startswith(old)), None)


def older_name(name: str) -> str:
    """The name that a parameter of this project's detector has there; other names stay as they are."""
    return _renamed(name, TO_THERE) or name


def has_older_names(names: Iterable[str]) -> bool:
    """Whether one of a checkpoint's names is the older implementation's."""
    return any(_renamed(name, TO_HERE) for name in names)


def from_mindspore_models(arrays: dict[str, np.ndarray], path: str) -> dict[str, np.ndarray]:
    """The contents of a checkpoint, name -> array, under this project's names; what has no older name is returned as it is.

    Of a checkpoint of the older implementation only the weights stay, as its optimizer's state is of no use here; the log says
    both.

    Args:
        arrays: name -> array.
        path: of the checkpoint, for messages.

    Raises:
        UserError: it has the older implementation's names and other ones.
    """
    if not has_older_names(arrays):
        return arrays
    weights = {}
    for name, array in arrays.items():
        here = _renamed(name, TO_HERE)
        of_trainer = name in TRAINER_STATE or name.startswith(MOMENTS) and _renamed(name[len(MOMENTS):], TO_HERE)
        if here:
            weights[here] = array
        elif not of_trainer:
            known = next(older for older in arrays if _renamed(older, TO_HERE))
            raise UserError(f"{path} has tensor {name} beside the older MindSpore implementation's {known}, but that "
                            "implementation's Faster R-CNN has no such tensor; give a checkpoint that one program wrote.")
    left = len(arrays) - len(weights)
    logger.info("%s is a checkpoint of the older MindSpore implementation: its %d weights get this project's names%s", path,
                len(weights), f"; {left} tensors of its optimizer are left out" if left else "")
    return weights
