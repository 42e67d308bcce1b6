"""Files and flags that were written for the older implementation of this detector: their keys, and the values used there."""
from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any

from src.config.base import flat_settings
from src.errors import UserError, short_repr

if TYPE_CHECKING:
    from src.config.schema import Config

logger = logging.getLogger("faster_rcnn")

RECIPE = "config/faster_rcnn/faster_rcnn_resnet50_fpn_1x_mindspore_models.yml"
PAGE = "docs/migration.md"
UNREAD = [f"data.{key}" for key in ("dataset_name", "detection_require_poly", "seg_size", "test_img_dir", "test_anno_path")]
# Older settings of which only these values are supported here. They are removed, and so are UNREAD.
SINGLE_VALUED = {"infer.predict_box_format": ("xyxy",), "infer.eval_parallel": (True,), "infer.with_postprocess": (True,),
                 "data.is_segment": (False,), "bbox_head.bbox_loss": (None, "None")}
OLDER_TRANSFORMS = {"Resize.shrink": "area", "Resize.exact_factor": True, "NormalizeImage.pad_first": True}
RENAMED = {"num_parallel_workers": "num_workers", "data.num_parallel_workers": "num_workers", "run_profilor": "run_profiler",
           "file_format": "mindir"}
SPLITS = ("data.train_transforms", "data.eval_transforms")


def upgrade_legacy_keys(layer: dict, where: str) -> dict:
    """Return a copy of the nested dict `layer`, a file or a flag, with the current names and sections of the settings. Raise a
    UserError if a setting has an unsupported value, or two spellings of a setting disagree."""
    layer = copy.deepcopy(layer)
    for dotted, supported in {**dict.fromkeys(UNREAD), **SINGLE_VALUED}.items():
        for value in _pop(layer, dotted):
            if supported and value not in supported:
                raise UserError(f"{where}: {dotted} can only be {supported[0]}, not {short_repr(value)}; remove the key")
    found = [(old, new, value) for old, new in RENAMED.items() for value in _pop(layer, old)]
    for split in SPLITS:
        steps = _section(layer, split).get("item_transforms")
        found += [(f"{split}.item_transforms.Resize.target_size", "data.target_size", value)
                  for step in (steps if isinstance(steps, list) else ()) for value in _pop(step, "Resize.target_size")]
    for old, new, value in found:
        section, _, key = new.rpartition(".")
        if (kept := _section(layer, section).setdefault(key, value)) != value:
            raise UserError(f"{where}: {new} is {short_repr(kept)} but {old} is {short_repr(value)}; keep one of them")
    return layer


def _section(layer: Any, dotted: str) -> dict:
    """Return the section of this dotted name, or an empty dict if it is missing; the schema reports other types later."""
    for name in filter(None, dotted.split(".")):
        layer = layer.get(name) if isinstance(layer, dict) else None
    return layer if isinstance(layer, dict) else {}


def _pop(layer: Any, dotted: str) -> list:
    """Remove a setting; return a list of its value, or an empty list if it is missing."""
    parent, _, key = dotted.rpartition(".")
    section = _section(layer, parent)
    return [section.pop(key)] if key in section else []


def differences(cfg: Config) -> list[tuple[str, Any, Any]]:
    """Return the settings whose value in `cfg` differs from the value that the older implementation always used for such a
    file: dotted name, older value, value in `cfg`."""
    proposal = cfg.rpn_head.train_proposal
    proposals = {**proposal.model_dump(), "drop_small_first": True, "joint_nms_thresh": proposal.nms_thresh, "clip_to": "canvas"}
    older = {
        **{f"{split}.{name}": value for name, value in OLDER_TRANSFORMS.items() for split in SPLITS},
        **{f"rpn_head.{use}_proposal.{name}": value for use in ("train", "test") for name, value in proposals.items()},
        "rpn_head.smooth_l1_beta": 1.0, "bbox_head.smooth_l1_beta": 1.0, "bbox_head.add_gt_as_proposals": True,
        "bbox_head.bbox_weights": [10.0, 10.0, 5.0, 5.0], "bbox_head.clip_first": False, "bbox_head.roi_extractor.aligned": False,
        "bbox_head.roi_extractor.sampling_ratio": 2, "infer.max_box_num": None, "lr.base_batch_size": 0, "clip_grads": False}
    jitter = "data.train_transforms.Resize."  # ScaleJitter scales like Resize
    here = {f"{jitter}shrink": "linear", f"{jitter}exact_factor": False, **flat_settings(cfg.model_dump())}
    return [(name, value, here[name]) for name, value in older.items() if value != here[name]]


def log_differences(layers: list[tuple[dict, str]], cfg: Config) -> None:
    """Warn of keys in `layers`, (mapping, file), that are ignored; if a file has keys of the older implementation, log
    `differences`."""
    unread = [dotted for dotted in UNREAD if any(dotted.partition(".")[2] in _section(layer, "data") for layer, _ in layers)]
    if unread:
        logger.warning("%s ignored: the older implementation never used these keys either", ", ".join(unread))
    files = [where for layer, where in layers if upgrade_legacy_keys(layer, where) != layer]
    if rows := [f"\n  {name}: older {older}, here {here}" for name, older, here in (differences(cfg) if files else [])]:
        logger.info("%s: written for the older implementation, which had other values of these settings, whatever its files "
                    "say:%s\n%s has all older values that affect the results for an image; %s explains them, and the differences "
                    "in training", ", ".join(files), "".join(rows), RECIPE, PAGE)
