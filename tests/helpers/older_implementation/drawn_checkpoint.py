"""Checkpoints in the format of the older MindSpore implementation, with random weights seeded by the tensor names."""
import math
import zlib

import mindspore as ms
import numpy as np

from tests.helpers.torchvision_files import resnet_shapes

# Part of a name -> gain of the weights of a convolution or dense layer; all other layers have 2.
GAINS = {"lateral": 1.0, "rois_score": 1.0, "rois_delta": 1.0, "bbox_cls": 1.0, "bbox_delta": 0.25}


def draw_tensor(name, shape, salt=0):
    """Return the float32 tensor that a checkpoint stores under `name`."""
    normal = np.random.default_rng([zlib.crc32(name.encode()), salt]).standard_normal(shape)
    kind = name.rpartition(".")[2]
    if kind == "moving_variance":
        value = 1 + 0.1 * abs(normal)
    elif kind == "moving_mean":
        value = 0.1 * normal
    elif kind == "gamma":  # the last norm of a bottleneck is small, so that features do not grow with the depth
        value = (1 + 0.1 * normal) * (0.2 if ".bn3." in name else 1)
    elif len(shape) == 1:
        value = 0.05 * normal
    else:
        gain = next((gain for part, gain in GAINS.items() if part in name), 2.0)
        value = normal * math.sqrt(gain / math.prod(shape[1:]))
    return value.astype(np.float32)


def older_shapes(resnet, num_classes, channels=256, hidden=1024):
    """Return names and shapes of a checkpoint, in order.

    Args:
        resnet: `resnet18` to `resnet152`.
        num_classes: K, without background.
        channels: channels of the pyramid and of the RPN.
        hidden: width of the box head.
    """
    shapes = {}
    for name, shape in resnet_shapes(resnet, counter=False).items():
        layer, _, part = f"backbone.bottom_up.{name.replace('downsample', 'down_sample')}".rpartition(".")
        if len(shape) > 1:
            shapes[f"{layer}.weight"] = shape
        elif part == "weight":  # of a norm
            shapes.update((f"{layer}.{part}", shape) for part in ("moving_mean", "moving_variance", "gamma", "beta"))
    finest = 64 if resnet in ("resnet18", "resnet34") else 256
    layers = {**{f"backbone.lateral_convs.{i}.conv.0": (channels, finest * 2**i, 1, 1) for i in range(4)},
              **{f"backbone.fpn_convs.{i}.conv.0": (channels, channels, 3, 3) for i in range(4)},
              "rpn_head.rpn_feat.rpn_conv": (channels, channels, 3, 3),
              "rpn_head.rpn_feat.rpn_rois_score": (3, channels, 1, 1),
              "rpn_head.rpn_feat.rpn_rois_delta": (12, channels, 1, 1),
              "bbox_head.head.fc6": (hidden, channels * 49), "bbox_head.head.fc7": (hidden, hidden),
              "bbox_head.bbox_cls": (num_classes + 1, hidden), "bbox_head.bbox_delta": (4 * num_classes, hidden)}
    for layer, shape in layers.items():
        shapes[f"{layer}.weight"], shapes[f"{layer}.bias"] = shape, shape[:1]
    return shapes


def drawn_weights(shapes):
    """Map names and shapes to names and arrays."""
    return {name: draw_tensor(name, shape) for name, shape in shapes.items()}


def write(path, arrays):
    """Write a checkpoint, name -> array, in the format of that implementation; returns its path as str."""
    ms.save_checkpoint([{"name": name, "data": ms.Tensor(array)} for name, array in arrays.items()], str(path))
    return str(path)
