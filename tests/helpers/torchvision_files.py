"""State dicts with torchvision's layout, built only from its documented structure."""
import numpy as np

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3),
          "resnet152": (3, 8, 36, 3)}


def _norm(shapes, name, channels, counter):
    for part in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{name}.{part}"] = (channels,)
    if counter:
        shapes[f"{name}.num_batches_tracked"] = ()


def resnet_shapes(name, counter=True):
    """Return names and shapes of torchvision's `name` without the last layer; counter: whether BatchNorm counts its batches."""
    expansion = 1 if name in ("resnet18", "resnet34") else 4
    shapes = {"conv1.weight": (64, 3, 7, 7)}
    _norm(shapes, "bn1", 64, counter)
    channels = 64
    for stage, blocks in enumerate(BLOCKS[name], 1):
        width = 32 * 2**stage
        for block in range(blocks):
            prefix = f"layer{stage}.{block}"
            sizes = [(width, channels, 3), (width, width, 3)]
            if expansion == 4:
                sizes = [(width, channels, 1), (width, width, 3), (4 * width, width, 1)]
            for i, (out, into, side) in enumerate(sizes, 1):
                shapes[f"{prefix}.conv{i}.weight"] = (out, into, side, side)
                _norm(shapes, f"{prefix}.bn{i}", out, counter)
            if block == 0 and channels != width * expansion:
                shapes[f"{prefix}.downsample.0.weight"] = (width * expansion, channels, 1, 1)
                _norm(shapes, f"{prefix}.downsample.1", width * expansion, counter)
            channels = width * expansion
    return shapes


def detector_shapes(name, rows, old=False):
    """Return names and shapes of a Faster R-CNN on `name`; rows: classes with background; old: names of earlier versions."""
    shapes = {f"backbone.body.{key}": shape for key, shape in resnet_shapes(name, counter=False).items()}
    channels = 64 if name in ("resnet18", "resnet34") else 256
    inner = "" if old else ".0"
    for i in range(4):
        for part, into, side in (("inner", channels * 2**i, 1), ("layer", 256, 3)):
            shapes[f"backbone.fpn.{part}_blocks.{i}{inner}.weight"] = (256, into, side, side)
            shapes[f"backbone.fpn.{part}_blocks.{i}{inner}.bias"] = (256,)
    layers = {f"rpn.head.conv{'' if old else '.0.0'}": (256, 256, 3, 3), "rpn.head.cls_logits": (3, 256, 1, 1),
              "rpn.head.bbox_pred": (12, 256, 1, 1), "roi_heads.box_head.fc6": (1024, 256 * 49),
              "roi_heads.box_head.fc7": (1024, 1024), "roi_heads.box_predictor.cls_score": (rows, 1024),
              "roi_heads.box_predictor.bbox_pred": (4 * rows, 1024)}
    for layer, shape in layers.items():
        shapes[f"{layer}.weight"], shapes[f"{layer}.bias"] = shape, shape[:1]
    return shapes


def detector_v2_shapes(name, rows, rpn_convs=2, convs=4, fcs=1):
    """Return names and shapes of the second version of the Faster R-CNN on `name`, with BatchNorm in pyramid and box head.

    rpn_convs: convolutions of the RPN head; convs, fcs: convolutions and dense layers of the box head, a FastRCNNConvFCHead.
    """
    shapes = {f"backbone.body.{key}": shape for key, shape in resnet_shapes(name).items()}
    first = detector_shapes(name, rows)
    convolutions = {**{key[:-len(".0.weight")]: shape for key, shape in first.items() if "_blocks." in key and len(shape) == 4},
                    **{f"roi_heads.box_head.{i}": (256, 256, 3, 3) for i in range(convs)}}
    for key, shape in convolutions.items():
        shapes[f"{key}.0.weight"] = shape
        _norm(shapes, f"{key}.1", shape[0], True)
    shapes.update({key: shape for key, shape in first.items() if key.startswith(("rpn.", "roi_heads.box_predictor."))})
    layers = {f"rpn.head.conv.{i}.0": (256, 256, 3, 3) for i in range(1, rpn_convs)}
    layers.update((f"roi_heads.box_head.{convs + 1 + 2 * i}", (1024, 1024 if i else 256 * 49)) for i in range(fcs))
    for layer, shape in layers.items():
        shapes[f"{layer}.weight"], shapes[f"{layer}.bias"] = shape, shape[:1]
    return shapes


def random_state(shapes):
    """Return arrays of the given shapes. In the box head's last layers, each row contains its index."""
    rng = np.random.default_rng(0)
    state = {}
    for name, shape in shapes.items():
        state[name] = np.array(7) if shape == () else rng.random(shape, np.float32)
        if ".box_predictor." in name:
            state[name][:] = np.arange(shape[0], dtype=np.float32).reshape(-1, *[1] * (len(shape) - 1))
    return state
