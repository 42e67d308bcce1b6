"""YAML files and flags -> Config."""
import copy
import functools
from dataclasses import asdict

from src.config.assign import assign, setting_names
from src.config.checks import check_config
from src.config.compat import modernise
from src.config.compose import MAX_DEPTH, read_layers
from src.config.schema import Config
from src.errors import UserError, show


def load_config(path, overrides=()) -> Config:
    """Read the YAML file `path` with its bases, then the overrides, over the schema's defaults, and check the result.

    Args:
        overrides: (dotted name, parsed value, where) each, in rising strength; `where` is the flag, for messages.

    Returns:
        Config with `config_file` set to `path`.

    Raises:
        UserError: a file that is missing or invalid, an unknown name, or a value that does not fit.
    """
    cfg, origins, names = Config(config_file=str(path)), {}, setting_names(Config)
    layers = read_layers(str(path)) + [(_nest(dotted, value, where), where) for dotted, value, where in overrides]
    for mapping, where in layers:
        assign(cfg, modernise(mapping, where), where, names, origins=origins)
    check_config(cfg, origins)
    return cfg


def config_to_dict(cfg: Config) -> dict:
    """All settings as nested dicts of plain values: dumped as YAML, they load as the same configuration."""
    settings = asdict(cfg)
    del settings["config_file"]
    return settings


def _nest(dotted, value, where):
    if dotted.count(".") > MAX_DEPTH:
        raise UserError(f"{where}: unknown key {show(dotted)}; no key has more than {MAX_DEPTH} dots")
    for name in reversed(dotted.split(".")):
        value = {name: value}
    return value


def with_settings(cfg: Config, settings: dict) -> Config:
    """A copy of `cfg` in which the settings {dotted name: value} have other values."""
    cfg = copy.deepcopy(cfg)
    for dotted, value in settings.items():
        *sections, name = dotted.split(".")
        setattr(functools.reduce(getattr, sections, cfg), name, value)
    return cfg
