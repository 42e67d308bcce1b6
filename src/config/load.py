"""Load a Config from YAML files with their bases, and from flags; check that its settings fit each other."""
from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml
from pydantic import ValidationError

from src.config.base import sentence
from src.config.older import log_differences, upgrade_legacy_keys
from src.config.schema import Config
from src.errors import UserError, is_printable, short_repr

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
    if head.head.name == "RCNNBBoxTwoFCHead" and (head.head.num_convs, head.head.num_fcs) != (0, 2):
        yield ("bbox_head.head.name RCNNBBoxTwoFCHead has no convolutions and two fully connected layers; for other numbers set "
               "it to ConvFCHead")
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
    for split in ("train", "val"):
        images, annotations = getattr(data, f"{split}_img_dir"), getattr(data, f"{split}_anno_path")
        if len({len(paths) if isinstance(paths, list) else None for paths in (images, annotations)}) > 1:
            yield (f"data.{split}_img_dir {images} and data.{split}_anno_path {annotations} must both be one path, or lists of "
                   "equal length: one folder for each annotation file")
    cells = max(sum(-(-height // stride) * -(-width // stride) for stride in anchors.strides) for height, width in data.canvases)
    number = cells * len(anchors.aspect_ratios) * len(anchors.anchor_sizes[0])
    if number > MAX_ANCHORS:
        yield (f"data.target_size {data.target_size}, {ANCHORS}.strides, {ANCHORS}.aspect_ratios and {ANCHORS}.anchor_sizes give "
               f"{number} anchors per image, more than {MAX_ANCHORS}; choose a smaller canvas, or fewer ratios and sizes")


config_to_dict = Config.model_dump  # all settings as nested dicts of plain values, which load as the same configuration
MAX_BYTES = 1 << 18  # real configurations are far smaller


def load_config(path: str | os.PathLike, overrides: Iterable[tuple[str, Any, str]] = (), complete: bool = True) -> Config:
    """Merge the schema's defaults, the YAML file `path` with its bases, and the overrides; return the checked configuration.

    For files of the older implementation, the log lists the settings that had other values there.

    Args:
        path: the file. Its `__BASE__` names one file or a list of files, relative to the file that names them.
        overrides: tuples (dotted name, parsed value, origin for error messages); later ones override earlier ones.
        complete: False if other settings will be merged, so that contradictions between settings are not checked yet.

    Raises:
        UserError: if a file is missing or invalid, a name is unknown, or a value is invalid.
    """
    layers = _read_layers(os.fspath(path))
    cfg = _merge_all(Config(), layers + [(_nest(dotted, value), where) for dotted, value, where in overrides], complete)
    log_differences(layers, cfg)
    return cfg


def with_settings(cfg: Config, settings: dict[str, Any]) -> Config:
    """Return a copy of `cfg` with new values of the settings {dotted name: value}, checked like the values in a file.

    Raises:
        UserError: if a name is unknown or a value is invalid.
    """
    return _merge_all(cfg, [(_nest(dotted, value), "this program") for dotted, value in settings.items()])


def parse_yaml(text: str | bytes, where: str) -> Any:
    """Return the value of `text` (str or UTF-8 bytes), read by PyYAML's safe loader; raise a UserError if it is invalid."""
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        reason = f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: {error.problem}"
    except RecursionError:
        reason = "nested too deeply"
    except Exception as error:  # for malformed scalars such as '!!bool x' or 2001-99-99, PyYAML raises KeyError and others
        reason = f"{type(error).__name__}: {error}"
    raise UserError(f"{where}: invalid YAML: {' '.join(reason[:200].split())}")


def _read_layers(path: str, stack: tuple[str, ...] = ()) -> list[tuple[dict, str]]:
    """Return `path` and all its bases as [(mapping, file)], where later files override: bases in their order, then `path`.
    `stack` is the chain of files whose __BASE__ led to this file."""
    path = os.path.normpath(path)
    if os.path.realpath(path) in map(os.path.realpath, stack):
        raise UserError(f"{stack[-1]}: __BASE__ leads in a cycle: {' -> '.join((*stack, path))}; break it")
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        named = f", which __BASE__ of {stack[-1]} names," if stack else ""
        raise UserError(f"configuration file {path}{named} cannot be read: {error.strerror}; check the path") from error
    if len(text) > MAX_BYTES:
        raise UserError(f"{path}: more than {MAX_BYTES} bytes are too many for a configuration file")
    mapping = parse_yaml(text, path)
    if not isinstance(mapping, dict):
        raise UserError(f"{path}: a configuration file must be a mapping of 'key: value' lines, not {short_repr(mapping)}")
    bases = mapping.pop("__BASE__", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) and is_printable(base) for base in bases):
        raise UserError(f"{path}: __BASE__ must be a file name or a list of file names, not {short_repr(bases)}")
    files = [os.path.join(os.path.dirname(path), base) for base in bases]
    return [*(layer for file in files for layer in _read_layers(file, (*stack, path))), (mapping, path)]


def _nest(dotted: str, value: Any) -> dict:
    for name in reversed(dotted.split(".", 5)):  # no key has more dots
        value = {name: value}
    return value


def _merge_all(cfg: Config, layers: list[tuple[dict, str]], complete: bool = True) -> Config:
    settings, origins = cfg.model_dump(), {}
    for layer, where in layers:
        layer = upgrade_legacy_keys(layer, where)
        data = layer["data"] if isinstance(layer.get("data"), dict) else {}
        changed = [name for name in ("train_transforms", "eval_transforms") if isinstance(data.get(name), dict)]
        data.update({name: {**settings["data"][name], **data[name]} for name in changed})  # to change the list of earlier layers
        try:
            checked = Config.model_validate(layer).data  # separately, so that the message can name the file or flag
        except ValidationError as error:
            raise UserError(f"{where}: {sentence(error, layer, Config)}") from error
        data.update({name: getattr(checked, name).model_dump() for name in changed})
        _merge(settings, layer, where, origins)
    cfg, given = Config.model_validate(settings), settings["data"]["target_size"]
    if cfg.data.target_size != given:
        logging.getLogger("faster_rcnn").warning("%s: data.target_size %s rounded up to multiples of 32: %s",
                                                 origins["data.target_size"], given, cfg.data.target_size)
    for message in contradictions(cfg) if complete else ():
        words = re.findall(r"\w+(?:\.\w+)*", message)
        where = ", ".join(dict.fromkeys(origins[word] for word in words if word in origins)) or "default settings"
        raise UserError(f"{where}: {message}")
    return cfg


def _merge(settings: dict, layer: dict, where: str, origins: dict[str, str], prefix: str = "") -> None:
    """Merge `layer` into `settings` section by section, and add {dotted name: where} to `origins`."""
    for key, value in layer.items():
        origins[prefix + key] = where
        if isinstance(value, dict) and isinstance(settings[key], dict):
            _merge(settings[key], value, where, origins, f"{prefix}{key}.")
        else:
            settings[key] = value
