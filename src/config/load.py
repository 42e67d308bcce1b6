"""Load a Config from YAML files with their bases, and from flags."""
from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from typing import Any

import yaml
from pydantic import ValidationError

from src.config.base import sentence
from src.config.checks import contradictions
from src.config.older import log_differences, upgrade_legacy_keys
from src.config.schema import Config
from src.errors import UserError, is_printable, short_repr

config_to_dict = Config.model_dump  # all settings as nested dicts of plain values, which load as the same configuration
MAX_BYTES = 1 << 18  # real configurations are far smaller


def load_config(path: str | os.PathLike, overrides: Iterable[tuple[str, Any, str]] = ()) -> Config:
    """Merge the schema's defaults, the YAML file `path` with its bases, and the overrides; return the checked configuration.

    For files of the older implementation, the log lists the settings that had other values there.

    Args:
        path: the file. Its `__BASE__` names one file or a list of files, relative to the file that names them.
        overrides: tuples (dotted name, parsed value, origin for error messages); later ones override earlier ones.

    Raises:
        UserError: if a file is missing or invalid, a name is unknown, or a value is invalid.
    """
    layers = _read_layers(os.fspath(path))
    cfg = _merge_all(Config(), layers + [(_nest(dotted, value), where) for dotted, value, where in overrides])
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


def _merge_all(cfg: Config, layers: list[tuple[dict, str]]) -> Config:
    settings, origins = cfg.model_dump(), {}
    for layer, where in layers:
        layer = upgrade_legacy_keys(layer, where)
        try:
            Config.model_validate(layer)  # separately, so that the message can name the file or flag
        except ValidationError as error:
            raise UserError(f"{where}: {sentence(error, layer, Config)}") from error
        _merge(settings, layer, where, origins)
    cfg, given = Config.model_validate(settings), settings["data"]["target_size"]
    if cfg.data.target_size != given:
        logging.getLogger("faster_rcnn").warning("%s: data.target_size %s rounded up to multiples of 32: %s",
                                                 origins["data.target_size"], given, cfg.data.target_size)
    for message in contradictions(cfg):
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
