"""The command line of train.py, eval.py, infer.py and export.py."""
from __future__ import annotations

import argparse
import logging
import os
from functools import partial, reduce
from typing import Any, get_args

from src.config.load import load_config, parse_yaml
from src.config.older import RENAMED
from src.config.schema import Config
from src.errors import UserError
from src.run.distributed import ROOT

logger = logging.getLogger("faster_rcnn")

DEFAULT_CONFIG = ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_1x.yml"

# The groups of --help, in order. The name of a flag is the key that it sets, or the part of the key after the last dot.
GROUPS = {
    "main options": ("checkpoint_path", "image", "output", "weight", "resume_ckpt", "epochs", "batch_size", "lr_init", "save_dir",
                   "infer.conf_threshold", "run_eval", "mindir", "raw", "quantize"),
    "device and speed": ("device_target", "mix", "num_workers", "compile_cache", "ms_mode"),
    "details": ("seed", "log_interval", "skip_bad_images", "ms_loss_scaler", "ms_loss_scaler_value", "tensorboard",
                "run_profiler"),
    "ModelArts": ("enable_modelarts", "data_url", "train_url", "ckpt_url", "data_dir")}
# {flag: description}; without a description, the schema's applies. SUPPRESS hides flags without effect in that script.
COMMON_FLAGS = dict.fromkeys(("device_target", "mix", "seed", "ms_mode", "batch_size", "num_workers", "save_dir", "compile_cache",
                              "skip_bad_images", *GROUPS["ModelArts"]))
TRAIN_FLAGS = {**COMMON_FLAGS, **dict.fromkeys((
    "resume_ckpt", "weight", "epochs", "lr_init", "ms_loss_scaler", "ms_loss_scaler_value", "log_interval", "run_eval",
    "tensorboard", "run_profiler", "eval_parallel"))}
EVAL_FLAGS = {**COMMON_FLAGS, "seed": argparse.SUPPRESS, "eval_parallel": None, "run_profilor": None,
              "checkpoint_path": "checkpoint to evaluate, or a folder of checkpoints",
              "batch_size": "images per batch and device", "save_dir": "folder whose subfolder eval gets the results"}
INFER_FLAGS = {**dict.fromkeys(("device_target", "mix", "ms_mode", "compile_cache", "image", "infer.conf_threshold")),
               "seed": argparse.SUPPRESS, "checkpoint_path": "checkpoint of the detector",
               "save_dir": "folder for the drawings and detections.json"}
# infer.py's defaults, which override the YAML file: its low confidence threshold is for evaluation, where low scores count too.
INFER_DEFAULTS = {"save_dir": os.path.join("output", "infer"), "infer.conf_threshold": 0.3}
EXPORT_FLAGS = {**dict.fromkeys(("device_target", "mindir", "raw", "quantize")),
                "output": "file to write, ending with .onnx or .mindir; required",
                "checkpoint_path": "checkpoint of the detector", "mix": "fp16 convolutions, for MindIR only",
                "batch_size": "images per call of the exported file",
                "image": "images on which the file is compared with the network, and int8 is calibrated; none: generated images",
                "infer.conf_threshold": "confidence threshold of the exported file"}
EXPORT_DEFAULTS = {"mix": False, "batch_size": 1, "infer.conf_threshold": INFER_DEFAULTS["infer.conf_threshold"]}
ALIASES = {"num_workers": ["--num_parallel_workers"], "run_profiler": ["--run_profilor"],
           "checkpoint_path": ["--ckpt_path"], "image": ["--imgs"], "mindir": ["--file_format"]}
# Flags of the older implementation that are ignored, with the reason that the warning gives.
IGNORED = {"eval_parallel": "all processes share every evaluation", "run_profilor": "only train.py can be profiled"}


def _parse(description: str, flags: dict[str, str | None], argv: list[str] | None = None,
           defaults: dict[str, Any] = {},  # noqa: B006
           forced: dict[str, Any] = {}) -> Config:  # noqa: B006
    """Return the configuration from `argv`, by default sys.argv[1:]. `defaults` {key: value} override the YAML file, and `forced`
    everything. A UserError is raised if the value of a flag or a setting in the YAML file is invalid, and SystemExit after --help
    or if a flag does not exist."""
    # With a value in the namespace, argparse does not set the default of --config.
    args = vars(_build_parser(description, flags, defaults).parse_args(argv, argparse.Namespace(config=None)))
    config, texts = args.pop("config"), args.pop("override")
    for key in IGNORED.keys() & args.keys():
        args.pop(key)
        logger.warning("--%s is ignored: %s", key, IGNORED[key])
    settings = [*{**defaults, **forced, **args}.items()]
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"-o {key}: must have the form KEY=VALUE, for example -o epochs=2")
        if RENAMED.get(key, key) in args:
            raise UserError(f"{_flag(key)} and -o set the same key; give one of them")
        if key in forced:
            raise UserError(f"-o {key}: it is always {forced[key]} here; leave it out")
        settings.append((key, parse_yaml(value, f"-o {key}")))
    given = [(key, value, "command line") for key, value in settings]
    cfg = load_config(config or DEFAULT_CONFIG, given, complete=bool(config) or "checkpoint_path" not in flags)
    vars(cfg)["given"] = None if config else given  # for `with_checkpoint`; pydantic treats it like a cached property
    return cfg


def with_checkpoint(cfg: Config, settings: dict[str, Any] | None, path: str) -> Config:
    """Return the configuration `cfg` of a command line with the nested settings in the checkpoint `path`, which flags override.

    With --config, `cfg` is returned. A UserError is raised if a setting is invalid.
    """
    given = vars(cfg).get("given")
    if given is None:
        return cfg
    logger.info("settings: from %s; flags and -o override them", f"the training of {path}" if settings else
                f"{DEFAULT_CONFIG}, as {path} contains none (--config selects another file)")
    layers = {**(settings or {}), "data": dict((settings or {}).get("data", {}))}
    layers["data"].pop("train_transforms", None)  # they may need a library that only training needs
    if any(key.startswith(("data.dataset_dir", "data.val_")) for key, *_ in given):
        layers["data"].pop("draw_shapes", None)  # the data set of the training was generated, this one is not
    return load_config(DEFAULT_CONFIG, [*((key, value, path) for key, value in layers.items()), *given])


# Each takes the words of the command line, by default sys.argv[1:]; see `_parse`.
parse_train_args = partial(_parse, "Train a detector.", TRAIN_FLAGS)
parse_eval_args = partial(_parse, "Evaluate a checkpoint, or all checkpoints in a folder.", EVAL_FLAGS)
parse_infer_args = partial(
    _parse, "Detect objects on images, draw them, and list them in detections.json. The defaults of --save_dir and "
    "--conf_threshold override the YAML file.", INFER_FLAGS, defaults=INFER_DEFAULTS, forced={"batch_size": 1})
parse_export_args = partial(
    _parse, "Export a detector to a file that runs without this program: ONNX in fp32, from image to detections, or MindIR. The "
    "file is compared with the network. The defaults of --mix, --batch_size and --conf_threshold override the YAML file.",
    EXPORT_FLAGS, defaults=EXPORT_DEFAULTS, forced={"ms_mode": 0})  # a file holds a graph


def _build_parser(description: str, flags: dict[str, str | None], defaults: dict[str, Any]) -> argparse.ArgumentParser:
    from_checkpoint = "checkpoint_path" in flags
    usage = "%(prog)s [FLAG VALUE ...] [-o KEY=VALUE ...], see --help"  # argparse's default lists all flags with each error
    parser = argparse.ArgumentParser(
        usage=usage, description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS,
        epilog=f"Flags and -o override the YAML file{' (without --config, the settings in the checkpoint)' * from_checkpoint}, "
               "which overrides the defaults shown above.")
    parser.add_argument("--config", default=str(DEFAULT_CONFIG), metavar="FILE",
                        help=f"YAML file (default: {'the settings in the checkpoint; if it has none, ' * from_checkpoint}"
                             f"{DEFAULT_CONFIG.relative_to(ROOT)})")
    parser.add_argument("-o", dest="override", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="set any key of the YAML file by its dotted name, for example -o \"data.target_size=[320,320]\""
                             f"{' epochs=2' * (not from_checkpoint)} (default: none)")
    for title, keys in GROUPS.items():
        group = parser.add_argument_group(title)
        for key in (key for key in keys if key in flags):
            _add_flag(group, key, flags[key], defaults)
    for key in IGNORED.keys() & flags.keys():
        parser.add_argument(f"--{key}", help=argparse.SUPPRESS)
    return parser


def _add_flag(group: argparse._ArgumentGroup, key: str, description: str | None, defaults: dict[str, Any]) -> None:
    *sections, name = key.split(".")
    section = reduce(getattr, sections, Config())
    field, default, aliases = type(section).model_fields[name], defaults.get(key, getattr(section, name)), ALIASES.get(key, [])
    choices = ("True", "False") if field.annotation is bool else get_args(field.annotation) * (default != [])
    metavar = "{" + ",".join(choices) + "}" if choices else {int: "N", float: "X"}.get(type(default), "PATH")
    shown = "; also ".join([f"default: {'none' if default in ('', []) else default}", *(set(aliases) - {"--file_format"})])
    spellings = group.add_mutually_exclusive_group()
    for flag in (_flag(key), *aliases):
        hidden = flag in aliases or description == argparse.SUPPRESS
        spellings.add_argument(flag, dest=key, nargs="+" if default == [] else None, metavar=metavar,
                               type=str if isinstance(default, (str, list)) else partial(parse_yaml, where=flag),
                               help=argparse.SUPPRESS if hidden else f"{description or field.description} ({shown})")


def _flag(key: str) -> str:
    return f"--{key.rpartition('.')[2]}"
