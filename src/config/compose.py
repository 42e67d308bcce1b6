"""Read YAML files with their bases, and single YAML values from the command line."""
from __future__ import annotations

import os
from typing import Any

import yaml

from src.errors import UserError, is_printable, short_repr

MAX_BYTES = 1 << 18  # real configurations are far smaller


def read_layers(path: str, stack: tuple = ()) -> list:
    """Return `path` and all its bases as [(mapping, file)], where later files override: bases in their order, then `path`.

    `__BASE__` names one file or a list of files, relative to the file that names them.

    Args:
        stack: the chain of files whose __BASE__ led to this file.

    Raises:
        UserError: if a file is missing, unreadable, invalid YAML or not a mapping, or the bases form a cycle.
    """
    path = os.path.normpath(path)
    if os.path.realpath(path) in map(os.path.realpath, stack):
        raise UserError(f"{stack[-1]}: __BASE__ leads in a cycle: {' -> '.join((*stack, path))}; break it")
    mapping, layers = _read_mapping(path, stack), []
    value = mapping.pop("__BASE__", [])
    bases = [value] if isinstance(value, str) else value
    if not isinstance(bases, list) or not all(isinstance(base, str) and is_printable(base) for base in bases):
        raise UserError(f"{path}: __BASE__ must be a file name or a list of file names, not {short_repr(value)}")
    for base in bases:
        layers += read_layers(os.path.join(os.path.dirname(path), base), (*stack, path))
    return [*layers, (mapping, path)]


def _read_mapping(path: str, stack: tuple) -> dict:
    named = f", which __BASE__ of {stack[-1]} names," if stack else ""
    if not os.path.isfile(path):
        state = "is not a file" if os.path.exists(path) else "does not exist"
        raise UserError(f"configuration file {path}{named} {state}; check the path")
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"configuration file {path}{named} cannot be read: {error.strerror}") from error
    if len(text) > MAX_BYTES:
        raise UserError(f"{path}: more than {MAX_BYTES} bytes are too many for a configuration file")
    value = parse_yaml(text, path)
    if not isinstance(value, dict):
        content = "is empty" if value is None else f"holds {short_repr(value)}"
        raise UserError(f"{path}: a configuration file must be a mapping of 'key: value' lines, but this one {content}")
    return value


def parse_yaml(text: str | bytes, where: str) -> Any:
    """Return the value of the YAML `text` (str or UTF-8 bytes), read by PyYAML's safe loader.

    Raises:
        UserError: if the YAML is invalid.
    """
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = error.problem or error.context
    except RecursionError:
        place, reason = "", "nested too deeply"
    except Exception as error:
        # For malformed scalars such as '!!bool x' or 2001-99-99, PyYAML raises KeyError, ValueError and others.
        place, reason = "", f"{type(error).__name__}: {error}"
    reason = " ".join(reason.split())  # PyYAML's reason has several lines
    raise UserError(f"{where}: invalid YAML{place}: {reason if len(reason) <= 200 else reason[:197] + '...'}")
