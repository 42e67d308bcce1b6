"""Load a Config from YAML files and flags."""
from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from src.config.checks import check_config, round_target_size
from src.config.compat import upgrade_legacy_keys
from src.config.compose import read_layers
from src.config.messages import sentence
from src.config.older_files import log_differences, older_files
from src.config.schema import Config
from src.errors import UserError

MAX_DOTS = 5  # more than any key has


def load_config(path, overrides: Iterable = ()) -> Config:
    """Merge the schema's defaults, the YAML file `path` with its bases, and the overrides; return the checked configuration.

    For files of the older implementation, the log lists the settings that had other values there.

    Args:
        overrides: tuples (dotted name, parsed value, flag for error messages); later ones override earlier ones.

    Raises:
        UserError: if a file is missing or invalid, a name is unknown, or a value is invalid.
    """
    flags = [(_nest(dotted, value), where) for dotted, value, where in overrides]
    layers = read_layers(str(path))
    cfg = _merge_all(Config(), layers + flags)
    if files := older_files(layers):
        log_differences(files, cfg)
    return cfg


def with_settings(cfg: Config, settings: dict) -> Config:
    """Return a copy of `cfg` with new values of the settings {dotted name: value}, checked like the values in a file.

    Raises:
        UserError: if a name is unknown or a value is invalid.
    """
    return _merge_all(cfg, [(_nest(dotted, value), "this program") for dotted, value in settings.items()])


def config_to_dict(cfg: Config) -> dict:
    """Return all settings as nested dicts of plain values, which load as the same configuration if dumped as YAML."""
    return cfg.model_dump()


def _nest(dotted: str, value) -> dict:
    for name in reversed(dotted.split(".", MAX_DOTS)):
        value = {name: value}
    return value


def _merge_all(cfg: Config, layers: list) -> Config:
    settings, origins = config_to_dict(cfg), {}
    for layer, where in layers:
        layer = upgrade_legacy_keys(layer, where)
        try:
            Config.model_validate(layer)  # separately, so that the message can name the file or flag
        except ValidationError as error:
            raise UserError(f"{where}: {sentence(error, layer, Config)}") from error
        _merge(settings, layer, where, origins)
    round_target_size(settings["data"], origins)
    cfg = Config.model_validate(settings)
    check_config(cfg, origins)
    return cfg


def _merge(settings: dict, layer: dict, where: str, origins: dict, prefix: str = "") -> None:
    """Merge `layer` into `settings` section by section, and add {dotted name: where} to `origins`."""
    for key, value in layer.items():
        origins[prefix + key] = where
        if isinstance(value, dict) and isinstance(settings[key], dict):
            _merge(settings[key], value, where, origins, f"{prefix}{key}.")
        else:
            settings[key] = value
