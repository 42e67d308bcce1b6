"""Conversion of checkpoints of the older MindSpore implementation (official/cv/RCNN of mindspore-lab/models).

Only the names differ. In both implementations, the background is the last of K + 1 classes, and each of the K classes has four
deltas. The rows of the RPN are the anchors of a cell, ordered by aspect ratio if a level has one anchor size.
"""
from __future__ import annotations

import logging

import numpy as np

from src.errors import UserError
from src.models import MOMENTS

logger = logging.getLogger("faster_rcnn")

# Prefixes of the parameter names of each layer: in this project, in the older implementation.
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
# Names that the older trainer adds to the weights: the state of its optimizer and loss scale.
TRAINER_STATE = {"learning_rate", "momentum", "global_step", "scale_sense"}


def _renamed(name, layers):
    """Return the name with its prefix replaced, or None if it has no prefix of a known layer."""
    return next((new + name[len(old):] for old, new in layers.items() if name.startswith(old)), None)


def older_name(name: str) -> str:
    """Return the older implementation's name of a parameter of this project. Other names are returned unchanged."""
    return _renamed(name, TO_THERE) or name


def from_mindspore_models(arrays: dict[str, np.ndarray], path: str) -> dict[str, np.ndarray]:
    """Return the weights of a checkpoint under this project's names. A checkpoint without older names is returned unchanged.

    The optimizer's state of an older checkpoint is dropped because it is not usable here. The conversion is logged.

    Args:
        arrays: contents of the checkpoint, name -> array.
        path: path of the checkpoint, for messages.

    Raises:
        UserError: the checkpoint mixes names of the older implementation with unknown names.
    """
    if not any(_renamed(name, TO_HERE) for name in arrays):
        return arrays
    weights = {}
    for name, array in arrays.items():
        here = _renamed(name, TO_HERE)
        of_trainer = name in TRAINER_STATE or name.startswith(MOMENTS) and _renamed(name[len(MOMENTS):], TO_HERE)
        if here:
            weights[here] = array
        elif not of_trainer:
            known = next(older for older in arrays if _renamed(older, TO_HERE))
            raise UserError(f"{path} has tensor {name}, which the older MindSpore implementation lacks, and its {known}; use a "
                            "checkpoint that a single program wrote.")
    left = len(arrays) - len(weights)
    logger.info("%s is a checkpoint of the older MindSpore implementation: its %d weights get this project's names%s", path,
                len(weights), f"; {left} tensors of its optimizer are left out" if left else "")
    return weights
