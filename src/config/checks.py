"""Checks of combinations of settings, after all files and flags are merged."""
from collections.abc import Iterator

from src.config.schema import Config
from src.errors import UserError

ANCHORS = "rpn_head.anchor_generator"
# Limit of the anchors' two-digit priorities, see src.models.matcher.subsample.
MAX_ANCHORS = 2**22
# Documented limit per call of MindSpore's NMSWithMask. On the CPU it also accepts 12,000; the CPU kernels have no limit.
MAX_NMS_BOXES = 2864


def check_device_limits(cfg: Config) -> None:
    """Raise a UserError if one NMS call on cfg.device_target, which must not be auto, would get more than MAX_NMS_BOXES boxes."""
    for use in () if cfg.device_target == "CPU" else ("train_proposal", "test_proposal"):
        proposal = getattr(cfg.rpn_head, use)
        # NMS over the proposals of all levels runs only if joint_nms_thresh is set.
        for key in ("pre_nms_top_n", "post_nms_top_n")[:1 if proposal.joint_nms_thresh is None else 2]:
            if getattr(proposal, key) > MAX_NMS_BOXES:
                raise UserError(f"rpn_head.{use}.{key} is {getattr(proposal, key)}, but on {cfg.device_target} at most "
                                f"{MAX_NMS_BOXES} boxes can suppress each other; lower it.")


def contradictions(cfg: Config) -> Iterator[str]:
    """Yield a message for each contradiction between settings. Each of them is a word of the message."""
    anchors, fpn, head, labels = cfg.rpn_head.anchor_generator, cfg.backbone.fpn, cfg.bbox_head, cfg.rpn_head.rpn_label_assignment
    strides, pooled, assigner = anchors.strides, head.roi_extractor.featmap_strides, head.bbox_assigner
    counts = len(strides), len(anchors.anchor_sizes), fpn.num_outs
    if len(set(counts)) > 1:
        yield (f"{ANCHORS}.strides ({counts[0]} levels), {ANCHORS}.anchor_sizes ({counts[1]}) and backbone.fpn.num_outs "
               f"({counts[2]}) must have the same number of levels")
    if len(set(map(len, anchors.anchor_sizes))) > 1:
        yield f"{ANCHORS}.anchor_sizes must have equally many sizes at every level, not {anchors.anchor_sizes}"
    if fpn.num_outs < len(fpn.level_index):
        yield (f"backbone.fpn.num_outs ({fpn.num_outs}) must be at least the length of backbone.fpn.level_index "
               f"({len(fpn.level_index)})")
    levels = [4 << index for index in fpn.level_index]
    levels += [levels[-1] << extra for extra in range(1, fpn.num_outs - len(levels) + 1)]
    if strides != levels:
        yield (f"{ANCHORS}.strides {strides} must be {levels}, the strides of the levels that backbone.fpn.level_index "
               f"{fpn.level_index} and backbone.fpn.num_outs {fpn.num_outs} give")
    if pooled != strides[:len(pooled)]:
        yield f"bbox_head.roi_extractor.featmap_strides {pooled} must be the first of {ANCHORS}.strides {strides}"
    if head.head.in_channel != cfg.backbone.out_channels:
        yield (f"bbox_head.head.in_channel ({head.head.in_channel}) must equal backbone.out_channels "
               f"({cfg.backbone.out_channels})")
    for section, parent, low, high in ((labels, "rpn_head.rpn_label_assignment", "negative_overlap", "positive_overlap"),
                                       (assigner, "bbox_head.bbox_assigner", "bg_thresh", "fg_thresh")):
        if getattr(section, low) > getattr(section, high):
            yield (f"{parent}.{low} ({getattr(section, low)}) must not be above {parent}.{high} ({getattr(section, high)})")
    yield from _contradictions_of_data(cfg)
    if cfg.early_stop and not cfg.run_eval:
        yield f"early_stop is {cfg.early_stop}, but run_eval is False, so that there is no AP to go by; correct one of them"


def _contradictions_of_data(cfg: Config) -> Iterator[str]:
    data, anchors = cfg.data, cfg.rpn_head.anchor_generator
    if data.names and data.nc not in (None, len(data.names)):
        yield f"data.nc is {data.nc} but data.names has {len(data.names)} names; correct one of them"
    for key, values in (("names", data.names), ("classes", data.classes), ("target_size", data.canvases)):
        if values and len(set(values)) < len(values):
            yield f"data.{key} must not contain a value twice: {list(values)}"
    lengths = [len(paths) if isinstance(paths, list) else None for paths in (data.train_img_dir, data.train_anno_path)]
    if lengths[0] != lengths[1]:
        yield (f"data.train_img_dir {data.train_img_dir} and data.train_anno_path {data.train_anno_path} must both be one path, "
               "or lists of equal length: one folder for each annotation file")
    cells = max(sum(-(-height // stride) * -(-width // stride) for stride in anchors.strides) for height, width in data.canvases)
    number = cells * len(anchors.aspect_ratios) * len(anchors.anchor_sizes[0])
    if number > MAX_ANCHORS:
        yield (f"data.target_size {data.target_size}, {ANCHORS}.strides, {ANCHORS}.aspect_ratios and {ANCHORS}.anchor_sizes give "
               f"{number} anchors per image, more than {MAX_ANCHORS}; choose a smaller canvas, or fewer ratios and sizes")
