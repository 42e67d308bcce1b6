"""Checks of combinations of settings, after all files and flags are merged."""
import itertools
import logging
from collections.abc import Iterator
from typing import Any

from src.config.schema import Config
from src.errors import UserError

STRIDE = 32  # stride of the backbone's last stage; the canvas's sides must be multiples of it
# Limit of the anchors' two-digit priorities, see src.models.matcher.subsample.
MAX_ANCHORS = 2**22
ANCHORS = "rpn_head.anchor_generator"
# Documented limit per call of MindSpore's NMSWithMask. On the CPU it also accepts 12,000; the CPU kernels have no limit.
MAX_NMS_BOXES = 2864


def round_target_size(data: dict, origins: dict) -> None:
    """Round target_size in the section `data` up to multiples of STRIDE and log the change; see `check_config`."""
    def round_up(size: Any) -> Any:
        return [round_up(part) for part in size] if isinstance(size, list) else -(-size // STRIDE) * STRIDE

    given = data["target_size"]
    rounded = round_up(given)
    if rounded != given:
        logging.getLogger("faster_rcnn").warning("%s: data.target_size %s rounded up to %s, multiples of %d",
                                                 origins["data.target_size"], given, rounded, STRIDE)
        data["target_size"] = rounded


def check_config(cfg: Config, origins: dict) -> None:
    """Check that the settings in `cfg` are consistent.

    Args:
        origins: {dotted name: file or flag that set it}; missing names have default values.

    Raises:
        UserError: if two settings contradict each other.
    """
    parts = _levels(cfg), _thresholds(cfg), _classes(cfg), _files(cfg), _canvases(cfg), _training(cfg)
    for holds, names, message in itertools.chain(*parts):
        if not holds:
            where = ", ".join(dict.fromkeys(origins[name] for name in names if name in origins)) or "default settings"
            raise UserError(f"{where}: {message}")


def check_device_limits(cfg: Config) -> None:
    """Check that the operators of cfg.device_target, which must not be auto, support the settings in `cfg`.

    Raises:
        UserError: if one NMS call on Ascend or GPU would get more than MAX_NMS_BOXES proposals.
    """
    if cfg.device_target == "CPU":
        return
    for use in ("train_proposal", "test_proposal"):
        proposal = getattr(cfg.rpn_head, use)
        # NMS over the proposals of all levels runs only if joint_nms_thresh is set.
        keys = ["pre_nms_top_n"] if proposal.joint_nms_thresh is None else ["pre_nms_top_n", "post_nms_top_n"]
        for key in keys:
            if getattr(proposal, key) > MAX_NMS_BOXES:
                raise UserError(f"rpn_head.{use}.{key} is {getattr(proposal, key)}, but on {cfg.device_target} at most "
                                f"{MAX_NMS_BOXES} boxes can suppress each other; lower it.")


def _levels(cfg: Config) -> Iterator[tuple]:
    """Yield tuples (condition that must hold, names of the settings involved, message if it does not hold)."""
    anchors, fpn, head = cfg.rpn_head.anchor_generator, cfg.backbone.fpn, cfg.bbox_head.head
    strides, pooled = anchors.strides, cfg.bbox_head.roi_extractor.featmap_strides
    counts = len(strides), len(anchors.anchor_sizes), fpn.num_outs
    yield len(set(counts)) == 1, [f"{ANCHORS}.strides", f"{ANCHORS}.anchor_sizes", "backbone.fpn.num_outs"], (
        f"{ANCHORS}.strides ({counts[0]} levels), {ANCHORS}.anchor_sizes ({counts[1]}) and backbone.fpn.num_outs ({counts[2]}) "
        "must have the same number of levels")
    yield len(set(map(len, anchors.anchor_sizes))) == 1, [f"{ANCHORS}.anchor_sizes"], (
        f"{ANCHORS}.anchor_sizes must have equally many sizes at every level, not {anchors.anchor_sizes}")
    yield fpn.num_outs >= len(fpn.level_index), ["backbone.fpn.num_outs", "backbone.fpn.level_index"], (
        f"backbone.fpn.num_outs ({fpn.num_outs}) must be at least the length of backbone.fpn.level_index "
        f"({len(fpn.level_index)})")
    from_backbone = [4 << index for index in fpn.level_index]
    from_backbone += [from_backbone[-1] << extra for extra in range(1, fpn.num_outs - len(from_backbone) + 1)]
    yield strides == from_backbone, [f"{ANCHORS}.strides", "backbone.fpn.level_index"], (
        f"{ANCHORS}.strides {strides} must be {from_backbone}, the strides of the levels that backbone.fpn.level_index "
        f"{fpn.level_index} and num_outs {fpn.num_outs} give")
    yield pooled == strides[:len(pooled)], ["bbox_head.roi_extractor.featmap_strides", f"{ANCHORS}.strides"], (
        f"bbox_head.roi_extractor.featmap_strides {pooled} must be the first of {ANCHORS}.strides {strides}")
    yield head.in_channel == cfg.backbone.out_channels, ["bbox_head.head.in_channel", "backbone.out_channels"], (
        f"bbox_head.head.in_channel ({head.in_channel}) must equal backbone.out_channels ({cfg.backbone.out_channels})")


def _thresholds(cfg: Config) -> Iterator[tuple]:
    labels, assigner = cfg.rpn_head.rpn_label_assignment, cfg.bbox_head.bbox_assigner
    for low, low_value, high, high_value in (
            ("rpn_head.rpn_label_assignment.negative_overlap", labels.negative_overlap,
             "rpn_head.rpn_label_assignment.positive_overlap", labels.positive_overlap),
            ("bbox_head.bbox_assigner.bg_thresh", assigner.bg_thresh, "bbox_head.bbox_assigner.fg_thresh", assigner.fg_thresh)):
        yield low_value <= high_value, [low, high], f"{low} ({low_value}) must not be above {high} ({high_value})"


def _classes(cfg: Config) -> Iterator[tuple]:
    names, classes, nc = cfg.data.names or [], cfg.data.classes or [], cfg.data.nc
    yield not names or nc in (None, len(names)), ["data.nc", "data.names"], (
        f"data.nc is {nc} but data.names has {len(names)} names; correct one of them")
    for key, value in (("names", names), ("classes", classes)):
        yield len(set(value)) == len(value), [f"data.{key}"], f"data.{key} must not name a class twice: {value}"


def _files(cfg: Config) -> Iterator[tuple]:
    images, annotations = cfg.data.train_img_dir, cfg.data.train_anno_path
    lists = [len(value) if isinstance(value, list) else None for value in (images, annotations)]
    yield lists[0] == lists[1], ["data.train_img_dir", "data.train_anno_path"], (
        f"data.train_img_dir {images} and data.train_anno_path {annotations} must both be one path, or lists of equal length: "
        "one image folder for each annotation file")


def _canvases(cfg: Config) -> Iterator[tuple]:
    generator, canvases = cfg.rpn_head.anchor_generator, cfg.data.canvases
    yield len(set(canvases)) == len(canvases), ["data.target_size"], (
        f"data.target_size must not name a canvas twice: {cfg.data.target_size}")
    cells = max(sum(-(-height // stride) * -(-width // stride) for stride in generator.strides) for height, width in canvases)
    anchors = cells * len(generator.aspect_ratios) * len(generator.anchor_sizes[0])
    names = ["data.target_size", *(f"{ANCHORS}.{name}" for name in ("strides", "aspect_ratios", "anchor_sizes"))]
    yield anchors <= MAX_ANCHORS, names, (
        f"data.target_size {cfg.data.target_size} and {ANCHORS} give {anchors} anchors an image, more than {MAX_ANCHORS}; "
        "choose a smaller target_size, or fewer aspect_ratios and anchor_sizes")


def _training(cfg: Config) -> Iterator[tuple]:
    yield cfg.run_eval or not cfg.early_stop, ["early_stop", "run_eval"], (
        f"early_stop is {cfg.early_stop} but run_eval is False, so that there would be no AP to go by; set run_eval: True, or "
        "early_stop: 0")
