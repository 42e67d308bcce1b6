"""The command line of train.py, eval.py, infer.py and export.py."""
from __future__ import annotations

import argparse
import logging
import os
from functools import partial, reduce
from pathlib import Path
from typing import Any, get_args

from src.config.load import load_config, parse_yaml
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
ALIASES = {"num_workers": ["--num_parallel_workers"], "run_profiler": ["--run_profilor"],
           "checkpoint_path": ["--ckpt_path"], "image": ["--imgs"]}
# Flags of the older implementation that are ignored, with the reason that the warning gives.
IGNORED = {"eval_parallel": "all processes share every evaluation", "run_profilor": "only train.py can be profiled"}


def _parse(description: str, flags: tuple[str, ...], argv: list[str] | None = None, defaults: dict[str, Any] = {},  # noqa: B006
           forced: dict[str, Any] = {}) -> Config:  # noqa: B006
    """Return the configuration from `argv`, by default sys.argv[1:]. `defaults` {key: value} override the YAML file, and `forced`
    everything.

    Raises:
        UserError: if the value of a flag or a setting in the YAML file is invalid.
        SystemExit: after --help, or if a flag does not exist.
    """
    args = vars(_build_parser(description, flags, defaults).parse_args(argv))
    config, texts = args.pop("config"), args.pop("override")
    for key in IGNORED.keys() & args.keys():
        args.pop(key)
        logging.getLogger("faster_rcnn").warning("--%s is ignored: %s", key, IGNORED[key])
    settings = [*{**defaults, **forced, **args}.items()]
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"-o {key}: must have the form KEY=VALUE, for example -o epochs=2")
        if key in args:
            raise UserError(f"{_flag(key)} and -o set the same key; give one of them")
        if key in forced:
            raise UserError(f"-o {key}: it is always {forced[key]} here; leave it out")
        settings.append((key, parse_yaml(value, f"-o {key}")))
    return load_config(config, [(key, value, "command line") for key, value in settings])


# Each takes the words of the command line, by default sys.argv[1:]; see `_parse`.
parse_train_args = partial(_parse, "Train a detector.", TRAIN_FLAGS)
parse_eval_args = partial(_parse, "Evaluate a checkpoint, or all checkpoints in a folder.", EVAL_FLAGS)
parse_infer_args = partial(
    _parse, "Detect objects on images, draw them, and list them in detections.json. The defaults of --save_dir and "
    "--conf_threshold override the YAML file.", INFER_FLAGS, defaults=INFER_DEFAULTS, forced={"batch_size": 1})
parse_export_args = partial(
    _parse, "Export a detector to a file that runs without this program. The file is compared with the network on the images of "
    "--image, or on generated images. The defaults of --batch_size and --conf_threshold override the YAML file.",
    EXPORT_FLAGS, defaults=EXPORT_DEFAULTS, forced={"ms_mode": 0})  # a file holds a graph


def _build_parser(description: str, flags: tuple[str, ...], defaults: dict[str, Any]) -> argparse.ArgumentParser:
    usage = "%(prog)s [FLAG VALUE ...] [-o KEY=VALUE ...], see --help"  # argparse's default lists all flags with each error
    parser = argparse.ArgumentParser(
        usage=usage, description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS,
        epilog="Flags override the YAML file, which overrides the built-in defaults shown above.")
    parser.add_argument("--config", default=str(DEFAULT_CONFIG), metavar="FILE", help="YAML file (default: %(default)s)")
    for key in flags:
        if key in IGNORED:
            parser.add_argument(f"--{key}", metavar="VALUE", help=f"ignored: {IGNORED[key]}")
            continue
        *sections, name = key.split(".")
        section = reduce(getattr, sections, Config())
        field, default = type(section).model_fields[name], defaults.get(key, getattr(section, name))
        choices = ("True", "False") if field.annotation is bool else get_args(field.annotation)
        parser.add_argument(*[_flag(key), *ALIASES.get(key, [])], dest=key, nargs="+" if default == [] else None,
                            type=str if isinstance(default, (str, list)) else partial(parse_yaml, where=_flag(key)),
                            metavar="{" + ",".join(choices) + "}" if choices and default != [] else name.upper(),
                            help=f"{field.description} (default: {'none' if default in ('', []) else default})")
    parser.add_argument("-o", dest="override", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="set any key of the YAML file by its dotted name, for example -o data.target_size=[320,320] "
                             "epochs=2 (default: none)")
    return parser


def _flag(key: str) -> str:
    return f"--{key.rpartition('.')[2]}"
