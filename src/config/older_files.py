"""Find files that were written for the older implementation, and log the settings that had other values there.

Such files load unchanged. Most of these settings are not in the files.
"""
from __future__ import annotations

import logging
from functools import reduce
from typing import Any

from src.config.compat import UNREAD, upgrade_legacy_keys
from src.config.schema import Config

logger = logging.getLogger("faster_rcnn")

RECIPE = "config/faster_rcnn/faster_rcnn_resnet50_fpn_1x_mindspore_models.yml"
PAGE = "docs/configuration.md"


def older_files(layers: list) -> list[str]:
    """Return the files in `layers`, a list of (mapping, file), with a key that only the older implementation knew."""
    sections = [layer["data"] for layer, _ in layers if isinstance(layer.get("data"), dict)]
    if unread := [f"data.{key}" for key in UNREAD if any(key in section for section in sections)]:
        logger.warning("%s ignored: the older implementation never used these keys either", ", ".join(unread))
    return [where for layer, where in layers if upgrade_legacy_keys(layer, where) != layer]


def older_values(cfg: Config) -> dict[str, Any]:
    """Return {dotted name: value} that the older implementation used, whatever its files said, for files that load as `cfg`."""
    proposal = cfg.rpn_head.train_proposal
    proposals = {**proposal.model_dump(), "drop_small_first": True, "joint_nms_thresh": proposal.nms_thresh,
                 "clip_to": "canvas"}
    return {
        **{f"data.{split}_transforms.Resize.shrink": "area" for split in ("train", "eval")},
        **{f"data.{split}_transforms.Resize.exact_factor": True for split in ("train", "eval")},
        **{f"data.{split}_transforms.NormalizeImage.pad_first": True for split in ("train", "eval")},
        **{f"rpn_head.{use}_proposal.{name}": value for use in ("train", "test") for name, value in proposals.items()},
        "rpn_head.smooth_l1_beta": 1.0,
        "bbox_head.smooth_l1_beta": 1.0,
        "bbox_head.add_gt_as_proposals": True,
        "bbox_head.bbox_weights": [10.0, 10.0, 5.0, 5.0],
        "bbox_head.clip_first": False,
        "bbox_head.roi_extractor.aligned": False,
        "bbox_head.roi_extractor.sampling_ratio": 2,
        "infer.max_box_num": None,
        "lr.base_batch_size": 0,
        "clip_grads": False,
    }


def differences(cfg: Config) -> list[tuple[str, Any, Any]]:
    """Return the settings that differ between `older_values` and `cfg`: dotted name, older value, value in `cfg`."""
    settings = cfg.model_dump()
    for split in ("train_transforms", "eval_transforms"):  # lists of transforms become sections
        steps = settings["data"][split]["item_transforms"]
        settings["data"][split] = {name: parameters for step in steps for name, parameters in step.items()}
        settings["data"][split].setdefault("Resize", {"shrink": "linear", "exact_factor": False})  # as in ScaleJitter
    pairs = [(name, value, reduce(dict.__getitem__, name.split("."), settings)) for name, value in older_values(cfg).items()]
    return [(name, value, here) for name, value, here in pairs if value != here]


def log_differences(files: list[str], cfg: Config) -> None:
    """Log a table of the settings that had other values in the older implementation, for which `files` were written."""
    rows = [("setting", "older", "here"), *(tuple(map(str, row)) for row in differences(cfg))]
    if len(rows) == 1:
        return
    logger.info("%s: written for the older implementation, which had other values of these settings, whatever its files say; set "
                "those in the second column for what it computed:", ", ".join(files))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        logger.info("  %s", "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())
    logger.info("%s has all that concern what is computed from an image; %s tells what each does, and what else differs in "
                "training", RECIPE, PAGE)
