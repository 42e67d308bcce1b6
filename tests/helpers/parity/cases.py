"""Photographs, images and boxes for special cases that the photographs do not contain, and weights without a file.

make_cases.py uses this file without MindSpore, and writes the files that `stored_arrays` reads.
"""
import math
import zlib

import numpy as np

from tests.helpers.paths import ROOT

# name -> classes, salt of the weights, canvas (height, width), boxes and classes of each image. With some other salts, a
# proposal is so close to a threshold that rounding decides, and a loss changes by the contribution of that proposal.
CASES = {
    "one_class": (1, 3, (192, 256), [
        # At all four borders, and one inside another.
        ([[0, 0, 60, 45], [150, 142, 256, 192], [50, 50, 130, 150], [70, 75, 100, 105]], [0, 0, 0, 0])]),
    "eighty_classes": (80, 6, (128, 128), [
        ([], []),
        # Smaller than a pixel; two identical boxes; the whole image.
        ([[50.25, 30.5, 50.75, 30.9], [15, 20, 55, 85], [15, 20, 55, 85], [0, 0, 128, 128],
          [6.5, 100, 40, 128], [75, 10, 120.5, 55.25]], [5, 79, 3, 0, 17, 42])]),
    # torchvision's second network, with several ResNets.
    **{f"v2_resnet{layers}": (3, salt, (160, 224), [([[10, 20, 90, 100], [100.5, 30, 220, 150], [0, 100, 60, 160]], [0, 2, 1])])
       for layers, salt in ((18, 8), (34, 8), (50, 5), (101, 5))},
}
V2_PROPOSALS = 200  # in the cases of the second network, so that all slots of the RoI sampler are used

# file -> ResNet of the second network, or None for the first network with ResNet50; classes, salt of the weights, canvas (height,
# width), and size of the top-left part of each photograph.
FIRST_NETWORK = "fasterrcnn_r50_fpn_320x416"
PHOTOGRAPHS = {
    FIRST_NETWORK: (None, 3, 0, (320, 416), [(320, 416), (320, 416)]),
    **{f"fasterrcnn_v2_{name}_160x224": (resnet, 3, 5, (160, 224), [(150, 217), (160, 203)])
       for name, resnet in (("r18", "resnet18"), ("r50", "resnet50"))},
}

LEARNING_RATE = 0.0002  # with 0.001 the first step divides a loss by 20, and rounding errors grow equally


def draw_image(size, seed):
    """Return an image uint8 RGB (height, width, 3): coloured squares of 16 pixels with noise."""
    rng = np.random.default_rng(seed)
    squares = rng.integers(30, 226, (-(-size[0] // 16), -(-size[1] // 16), 3))
    image = np.kron(squares, np.ones((16, 16, 1), int))[: size[0], : size[1]]
    return (image + rng.integers(-30, 30, image.shape)).astype(np.uint8)


def images_of(name):
    """Return the images of a case, uint8 (B, height, width, 3)."""
    _, salt, size, annotated = CASES[name]
    return np.stack([draw_image(size, [salt, i]) for i in range(len(annotated))])


def annotations_of(name):
    """Return boxes (n, 4) float32 and classes (n,) int64 of each image of a case."""
    return [(np.float32(boxes).reshape(-1, 4), np.int64(labels)) for boxes, labels in CASES[name][3]]


def stored_arrays(name):
    """Return torchvision's stored results, name -> array. `python -m tests.helpers.parity.make_cases tests/integration/parity`
    writes the files again with the installed torchvision."""
    with np.load(ROOT / "tests" / "integration" / "parity" / f"{name}.npz") as file:
        return dict(file)


def photographs_of(name):
    """Return the photographs of an entry of PHOTOGRAPHS, a list of uint8 (height, width, 3)."""
    sizes = PHOTOGRAPHS[name][-1]
    return [pixels[:height, :width] for pixels, (height, width) in zip(stored_arrays(FIRST_NETWORK)["image"], sizes)]


def v2_resnet(name):
    """Return the ResNet of a case of the second network, or None for a case of the first one."""
    return name.removeprefix("v2_") if name.startswith("v2_") else None


def last_norm(resnet):
    """Return the part of a name that belongs to the last BatchNorm of a residual block."""
    return ".bn2." if resnet in ("resnet18", "resnet34") else ".bn3."


def draw_tensor(name, shape, salt, damped=".bn3."):
    """Return the float32 tensor that torchvision's state dict stores under `name`, random with the name as seed. Weights with
    `damped` in their names are small: otherwise, features would grow from block to block."""
    normal = np.random.default_rng([zlib.crc32(name.encode()), salt]).standard_normal(shape)
    if name.endswith("running_mean"):
        value = normal / 10
    elif name.endswith("running_var"):
        value = 1 + abs(normal) / 10
    elif len(shape) == 1:
        value = (1 + normal / 10) * (0.2 if damped in name else 1) if name.endswith(".weight") else normal / 20
    else:
        gain = 2 if any(part in name for part in (".body.", "conv", "fc")) else 1
        gain = 0.25 if name.endswith("bbox_pred.weight") else gain
        value = normal * math.sqrt(gain / math.prod(shape[1:]))
    return value.astype(np.float32)
