"""The command line of train.py, eval.py, infer.py and export.py."""
from __future__ import annotations

import argparse
import logging
import os
from functools import reduce
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from src.config.compose import parse_yaml
from src.config.load import load_config
from src.config.schema import Config
from src.errors import UserError

DEFAULT_CONFIG = Path(__file__).resolve().parents[2] / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_1x.yml"

# The name of a flag is the key that it sets, or the part of the key after the last dot.
COMMON_FLAGS = ("device_target", "mix", "seed", "ms_mode", "batch_size", "num_workers", "save_dir", "compile_cache",
                "skip_bad_images", "enable_modelarts", "data_url", "train_url", "ckpt_url", "data_dir")
TRAIN_FLAGS = (*COMMON_FLAGS, "resume_ckpt", "lr_init", "ms_loss_scaler", "ms_loss_scaler_value", "log_interval", "run_eval",
               "tensorboard", "run_profiler", "eval_parallel")
EVAL_FLAGS = (*COMMON_FLAGS, "checkpoint_path", "eval_parallel", "run_profilor")
INFER_FLAGS = ("device_target", "mix", "seed", "ms_mode", "compile_cache", "checkpoint_path", "image", "save_dir",
               "infer.conf_threshold")
# infer.py's defaults, which override the YAML file: its low confidence threshold is for evaluation, where low scores count too.
INFER_DEFAULTS = {"save_dir": os.path.join("output", "infer"), "infer.conf_threshold": 0.3}
EXPORT_FLAGS = ("device_target", "mix", "batch_size", "checkpoint_path", "file_format", "raw", "quantize", "output", "image",
                "infer.conf_threshold")
EXPORT_DEFAULTS = {"batch_size": 1, "infer.conf_threshold": INFER_DEFAULTS["infer.conf_threshold"]}
ALIASES = {"num_workers": "--num_parallel_workers", "run_profiler": "--run_profilor", "checkpoint_path": "--ckpt_path",
           "image": "--imgs"}
# Flags of the older implementation that are ignored, with the reason that the warning gives.
IGNORED = {"eval_parallel": "all processes share every evaluation", "run_profilor": "only train.py can be profiled"}
BOOLEANS = {"True": True, "true": True, "False": False, "false": False}


def parse_train_args(argv: list[str] | None = None) -> Config:
    """Return the configuration of a training run from `argv`, by default sys.argv[1:].

    Raises:
        UserError: if the value of a flag or a setting in the YAML file is invalid.
        SystemExit: after --help, or if a flag does not exist.
    """
    return _parse("Train a detector.", TRAIN_FLAGS, argv)


def parse_eval_args(argv: list[str] | None = None) -> Config:
    """Return the configuration of an evaluation from `argv`; see `parse_train_args`."""
    return _parse("Evaluate a checkpoint, or all checkpoints in a folder.", EVAL_FLAGS, argv)


def parse_infer_args(argv: list[str] | None = None) -> Config:
    """Return the configuration for infer.py from `argv`, with batch_size 1; see `parse_train_args`."""
    return _parse("Detect objects on images, draw them, and list them in detections.json. The defaults of --save_dir and "
                  "--conf_threshold override the YAML file.", INFER_FLAGS, argv, INFER_DEFAULTS, {"batch_size": 1})


def parse_export_args(argv: list[str] | None = None) -> Config:
    """Return the configuration for export.py from `argv`, with ms_mode 0 because a file holds a graph; see `parse_train_args`."""
    return _parse("Export a detector to a file that runs without this program. The file is compared with the network on the "
                  "images of --image, or on generated images. The defaults of --batch_size and --conf_threshold override "
                  "the YAML file.",
                  EXPORT_FLAGS, argv, EXPORT_DEFAULTS, {"ms_mode": 0})


def _parse(description: str, flags: tuple, argv: list[str] | None, defaults: dict = {}, forced: dict = {}) -> Config:  # noqa: B006
    args = vars(_build_parser(description, flags, defaults).parse_args(argv))
    for key in [name for name in IGNORED if args.get(name) is not None]:
        logging.getLogger("faster_rcnn").warning("--%s is ignored: %s", key, IGNORED[key])
    given = {key: _parse_flag(key, args[key]) for key in flags if args[key] is not None and key not in IGNORED}
    overrides = [(key, value, "default settings") for key, value in {**defaults, **forced}.items()]
    overrides += [(key, value, _flag(key)) for key, value in given.items()]
    for text in args["override"]:
        key, equals, value = text.partition("=")
        where = f"-o {key}"
        if not equals:
            raise UserError(f"{where}: must have the form KEY=VALUE, for example -o epochs=2")
        if key in given:
            raise UserError(f"{where}: {_flag(key)} is given as well; give one of them")
        if key in forced:
            raise UserError(f"{where}: {key} is always {forced[key]} here; leave it out")
        overrides.append((key, parse_yaml(value, where), where))
    return load_config(args["config"], overrides)


def _build_parser(description: str, flags: tuple, defaults: dict) -> argparse.ArgumentParser:
    usage = "%(prog)s [FLAG VALUE ...] [-o KEY=VALUE ...], see --help"  # argparse's default lists all flags with each error
    parser = argparse.ArgumentParser(usage=usage, description=description, allow_abbrev=False, epilog=(
        "Flags override the YAML file, which overrides the built-in defaults shown above."))
    parser.add_argument("--config", default=str(DEFAULT_CONFIG), metavar="FILE", help="YAML file (default: %(default)s)")
    for key in [name for name in flags if name in IGNORED]:
        parser.add_argument(f"--{key}", metavar="VALUE", help=f"ignored: {IGNORED[key]}")
    for key in [name for name in flags if name not in IGNORED]:
        field, default = _setting(key)
        default = defaults.get(key, default)
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        choices = ("True", "False") if field.annotation is bool else choices
        names = [_flag(key), ALIASES[key]] if key in ALIASES else [_flag(key)]
        parser.add_argument(*names, dest=key, nargs="+" if default == [] else None,
                            metavar="{" + ",".join(map(str, choices)) + "}" if choices else _flag(key)[2:].upper(),
                            help=f"{field.description} (default: {'none' if default in ('', []) else default})")
    parser.add_argument("-o", dest="override", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="set any key of the YAML file by its dotted name, for example -o data.target_size=[320,320] "
                             "epochs=2 (default: none)")
    return parser


def _flag(key: str) -> str:
    return f"--{key.rpartition('.')[2]}"


def _setting(key: str) -> tuple[FieldInfo, Any]:
    """Return the schema's field of a dotted name, and its default."""
    *sections, name = key.split(".")
    section = reduce(getattr, sections, Config())
    return type(section).model_fields[name], getattr(section, name)


def _parse_flag(key: str, text: Any) -> Any:
    """Convert `text` to the type of `key`; invalid text is returned as it is, and the schema then reports the error."""
    kind = type(_setting(key)[1])
    if kind is bool:
        return BOOLEANS.get(text, text)
    try:
        return int(text) if kind is int else text
    except ValueError:
        return text
