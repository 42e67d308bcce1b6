"""What must hold between settings, once all files and flags are merged."""
import logging

from src.config.schema import Config
from src.errors import UserError

STRIDE = 32  # of the backbone's last stage: the canvas must be a multiple of it
# Anchors are sampled by ranks up to twice their number, which fp32 must tell apart.
MAX_ANCHORS = 2**23


def round_target_size(data: dict, origins: dict) -> None:
    """Round target_size in the section `data` up to multiples of STRIDE, and log that."""
    given = data["target_size"]
    rounded = [-(-side // STRIDE) * STRIDE for side in given]
    if rounded != given:
        logging.getLogger("faster_rcnn").warning("%s: data.target_size %s rounded up to %s, multiples of %d",
                                                 origins["data.target_size"], given, rounded, STRIDE)
        data["target_size"] = rounded


def check_config(cfg: Config, origins: dict) -> None:
    """Check `cfg` as a whole.

    Args:
        origins: {dotted name: file or flag that set it}; names that are missing stand at their defaults.

    Raises:
        UserError: two settings that contradict each other.
    """
    _check_levels(cfg, origins)
    _check_thresholds(cfg, origins)
    _check_data(cfg, origins)
    _check_anchors(cfg, origins)


def _require(holds, origins, names, message):
    if not holds:
        where = ", ".join(dict.fromkeys(origins[name] for name in names if name in origins)) or "default settings"
        raise UserError(f"{where}: {message}")


def _check_levels(cfg, origins):
    anchors, fpn, roi = cfg.rpn_head.anchor_generator, cfg.backbone.fpn, cfg.bbox_head.roi_extractor
    prefix = "rpn_head.anchor_generator"
    counts = len(anchors.strides), len(anchors.anchor_sizes), fpn.num_outs
    _require(len(set(counts)) == 1, origins, [f"{prefix}.strides", f"{prefix}.anchor_sizes", "backbone.fpn.num_outs"],
             f"{prefix}.strides ({counts[0]} levels), {prefix}.anchor_sizes ({counts[1]}) and backbone.fpn.num_outs "
             f"({counts[2]}) must have the same number of levels")
    shapes = {len(sizes) for sizes in anchors.anchor_sizes}
    _require(len(shapes) == 1, origins, [f"{prefix}.anchor_sizes"],
             f"{prefix}.anchor_sizes must have equally many sizes at every level, not {anchors.anchor_sizes}")
    _require(fpn.num_outs >= len(fpn.level_index), origins, ["backbone.fpn.num_outs", "backbone.fpn.level_index"],
             f"backbone.fpn.num_outs ({fpn.num_outs}) must be at least the length of backbone.fpn.level_index "
             f"({len(fpn.level_index)})")
    from_backbone = [4 << index for index in fpn.level_index]
    from_backbone += [from_backbone[-1] << extra for extra in range(1, fpn.num_outs - len(from_backbone) + 1)]
    _require(anchors.strides == from_backbone, origins, [f"{prefix}.strides", "backbone.fpn.level_index"],
             f"{prefix}.strides {anchors.strides} must be {from_backbone}, the strides of the levels that "
             f"backbone.fpn.level_index {fpn.level_index} and num_outs {fpn.num_outs} give")
    pooled = roi.featmap_strides
    _require(pooled == anchors.strides[:len(pooled)], origins,
             ["bbox_head.roi_extractor.featmap_strides", f"{prefix}.strides"],
             f"bbox_head.roi_extractor.featmap_strides {pooled} must be the first of {prefix}.strides "
             f"{anchors.strides}")
    head = cfg.bbox_head.head
    _require(head.in_channel == cfg.backbone.out_channels, origins,
             ["bbox_head.head.in_channel", "backbone.out_channels"],
             f"bbox_head.head.in_channel ({head.in_channel}) must equal backbone.out_channels "
             f"({cfg.backbone.out_channels})")


def _check_thresholds(cfg, origins):
    labels, assigner = cfg.rpn_head.rpn_label_assignment, cfg.bbox_head.bbox_assigner
    for prefix, low, high, section in (
            ("rpn_head.rpn_label_assignment", "negative_overlap", "positive_overlap", labels),
            ("bbox_head.bbox_assigner", "bg_thresh", "fg_thresh", assigner)):
        low_value, high_value = getattr(section, low), getattr(section, high)
        _require(low_value <= high_value, origins, [f"{prefix}.{low}", f"{prefix}.{high}"],
                 f"{prefix}.{low} ({low_value}) must not be above {prefix}.{high} ({high_value})")


def _check_data(cfg, origins):
    names, nc = cfg.data.names, cfg.data.nc
    _require(names is None or nc is None or len(names) == nc, origins, ["data.nc", "data.names"],
             f"data.nc is {nc} but data.names has {len(names or ())} names; correct one of them")
    _require(names is None or len(set(names)) == len(names), origins, ["data.names"],
             f"data.names must not name a class twice: {names}")


def _check_anchors(cfg, origins):
    generator, (height, width) = cfg.rpn_head.anchor_generator, cfg.data.target_size
    cells = sum(-(-height // stride) * -(-width // stride) for stride in generator.strides)
    anchors = cells * len(generator.aspect_ratios) * len(generator.anchor_sizes[0])
    names = [f"rpn_head.anchor_generator.{name}" for name in ("strides", "aspect_ratios", "anchor_sizes")]
    _require(anchors <= MAX_ANCHORS, origins, ["data.target_size", *names],
             f"data.target_size {cfg.data.target_size} and rpn_head.anchor_generator give {anchors} anchors an image, more than "
             f"{MAX_ANCHORS}; choose a smaller target_size, or fewer aspect_ratios and anchor_sizes")
