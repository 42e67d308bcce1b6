"""Known weights of the older MindSpore implementation: each tensor is drawn from the name that it has there."""
import math
import re
import zlib

import numpy as np

# Beginnings of parameters' names, here and there. What follows is the same.
OLDER_NAMES = (
    (r"backbone\.stages\.", "backbone.bottom_up."),
    (r"fpn\.lateral\.(\d+)\.", r"backbone.lateral_convs.\1.conv.0."),
    (r"fpn\.output\.(\d+)\.", r"backbone.fpn_convs.\1.conv.0."),
    (r"rpn_head\.conv\.", "rpn_head.rpn_feat.rpn_conv."),
    (r"rpn_head\.objectness\.", "rpn_head.rpn_feat.rpn_rois_score."),
    (r"rpn_head\.deltas\.", "rpn_head.rpn_feat.rpn_rois_delta."),
    (r"box_head\.fc1\.", "bbox_head.head.fc6."),
    (r"box_head\.fc2\.", "bbox_head.head.fc7."),
    (r"box_head\.classes\.", "bbox_head.bbox_cls."),
    (r"box_head\.deltas\.", "bbox_head.bbox_delta."),
)
# Layers of weights that keep the variance of what they get; the others double it, for the ReLU that follows them.
WITHOUT_RELU = ("rois_score", "rois_delta", "bbox_cls", "lateral")


def older_name(name):
    """The name that one of this project's parameters has there."""
    [older] = [re.sub(f"^{here}", there, name) for here, there in OLDER_NAMES if re.match(here, name)]
    return older


def draw_older_tensor(name, shape, salt):
    """The tensor, float32, that a checkpoint holds under its older name."""
    normal = np.random.default_rng([zlib.crc32(name.encode()), salt]).standard_normal(shape)
    if name.endswith("moving_variance"):
        value = 1 + 0.1 * abs(normal)
    elif name.endswith("moving_mean"):
        value = 0.1 * normal
    elif name.endswith("gamma"):
        value = (0.2 if ".bn3." in name else 1.0) * (1 + 0.1 * normal)  # small at the end of each bottleneck
    elif len(shape) == 1:
        value = 0.05 * normal
    else:
        gain = 0.25 if "bbox_delta" in name else 1.0 if any(layer in name for layer in WITHOUT_RELU) else 2.0
        value = normal * np.sqrt(gain / math.prod(shape[1:]))
    return value.astype(np.float32)
