"""YAML files and flags -> Config."""
from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from src.config.checks import check_config, round_target_size
from src.config.compat import modernise
from src.config.compose import read_layers
from src.config.messages import sentence
from src.config.older_files import log_differences, older_files
from src.config.schema import Config
from src.errors import UserError

MAX_DOTS = 5  # more than any key has


def load_config(path, overrides: Iterable = ()) -> Config:
    """Read the YAML file `path` with its bases, then the overrides, over the schema's defaults, and check the result.

    Where files of the older implementation are among them, the log says what they meant there.

    Args:
        overrides: (dotted name, parsed value, where) each, in rising strength; `where` is the flag, for messages.

    Raises:
        UserError: a file that is missing or invalid, an unknown name, or a value that does not fit.
    """
    flags = [(_nest(dotted, value), where) for dotted, value, where in overrides]
    layers = read_layers(str(path))
    cfg = _merge_all(Config(), layers + flags)
    if files := older_files(layers):
        log_differences(files, cfg)
    return cfg


def with_settings(cfg: Config, settings: dict) -> Config:
    """A copy of `cfg` in which the settings {dotted name: value} have other values, checked as those of a file are.

    Raises:
        UserError: an unknown name, or a value that does not fit.
    """
    return _merge_all(cfg, [(_nest(dotted, value), "this program") for dotted, value in settings.items()])


def config_to_dict(cfg: Config) -> dict:
    """All settings as nested dicts of plain values: dumped as YAML, they load as the same configuration."""
    return cfg.model_dump()


def _nest(dotted: str, value) -> dict:
    for name in reversed(dotted.split(".", MAX_DOTS)):
        value = {name: value}
    return value


def _merge_all(cfg: Config, layers: list) -> Config:
    settings, origins = config_to_dict(cfg), {}
    for layer, where in layers:
        layer = modernise(layer, where)
        try:
            Config.model_validate(layer)  # alone, so that the message can name its file or flag
        except ValidationError as error:
            raise UserError(f"{where}: {sentence(error, layer, Config)}") from error
        _merge(settings, layer, where, origins)
    round_target_size(settings["data"], origins)
    cfg = Config.model_validate(settings)
    check_config(cfg, origins)
    return cfg


def _merge(settings: dict, layer: dict, where: str, origins: dict, prefix: str = "") -> None:
    """Put `layer` into `settings`, section by section, and {dotted name: where} into `origins`."""
    for key, value in layer.items():
        origins[prefix + key] = where
        if isinstance(value, dict) and isinstance(settings[key], dict):
            _merge(settings[key], value, where, origins, f"{prefix}{key}.")
        else:
            settings[key] = value
