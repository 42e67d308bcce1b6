"""Read YAML files with their bases, and single YAML values from the command line."""
import os

import yaml

from src.errors import UserError, is_plain, show

# All far beyond any real configuration.
MAX_BYTES = 1 << 18
MAX_VALUES = 10_000
MAX_DEPTH = 20
MAX_FILES = 100


class _BeyondReasonError(Exception):
    """Something is nested too deeply or would become too large."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader. It refuses merge keys (<<) that multiply beyond reason before it carries them out, and brackets in
    brackets at once: their number squared would be the time it takes."""

    def fetch_flow_collection_start(self, token_class):
        if self.flow_level > MAX_DEPTH:
            raise _BeyondReasonError
        super().fetch_flow_collection_start(token_class)

    def flatten_mapping(self, node):
        count = 0
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if isinstance(merged, yaml.MappingNode):
                        self.flatten_mapping(merged)
                        count += len(merged.value)
                    if count > MAX_VALUES:
                        raise _BeyondReasonError
        super().flatten_mapping(node)


def read_layers(path) -> list:
    """The file `path` and all its bases as [(mapping, file)], the weakest first: bases in their order, then the file.

    `__BASE__` names one file or a list of files, relative to the file that names them.

    Raises:
        UserError: missing or unreadable file, invalid YAML, no mapping, a cycle of bases, or too many of them.
    """
    layers = []
    _add_layers(path, (), layers)
    return layers


def _add_layers(path, stack, layers):
    path = os.path.normpath(path)
    identity = os.path.realpath(path)
    if identity in [os.path.realpath(earlier) for earlier in stack]:
        raise UserError(f"{stack[-1]}: __BASE__ leads in a cycle: {' -> '.join((*stack, path))}; break it")
    if len(stack) > MAX_DEPTH or len(layers) > MAX_FILES:
        raise UserError(f"{stack[0]}: __BASE__ leads to more than {MAX_FILES} files, or {MAX_DEPTH} in a row; use fewer")
    mapping = dict(_read_mapping(path, stack))
    for base in _bases(mapping.pop("__BASE__", []), path):
        _add_layers(os.path.join(os.path.dirname(path), base), (*stack, path), layers)
    layers.append((mapping, path))


def _bases(value, path):
    bases = [value] if isinstance(value, str) else value
    if not isinstance(bases, list) or not all(isinstance(base, str) and is_plain(base) for base in bases):
        raise UserError(f"{path}: __BASE__ must be a file name or a list of file names, not {show(value)}")
    return bases


def _read_mapping(path, stack):
    named = f", which __BASE__ of {stack[-1]} names," if stack else ""
    if not os.path.isfile(path):
        state = "is not a file" if os.path.exists(path) else "does not exist"
        raise UserError(f"configuration file {path}{named} {state}; check the path")
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES)
    except OSError as error:
        raise UserError(f"configuration file {path}{named} cannot be read: {error.strerror}") from error
    if size > MAX_BYTES:
        raise UserError(f"{path}: {size} bytes are too many for a configuration file (at most {MAX_BYTES})")
    value = parse_yaml(text, path)
    if not isinstance(value, dict):
        content = "is empty" if value is None else f"holds {show(value)}"
        raise UserError(f"{path}: a configuration file must be a mapping of 'key: value' lines, but this one {content}")
    return value


def parse_yaml(text, where):
    """The value of the YAML `text` (str or UTF-8 bytes), by a safe loader.

    Raises:
        UserError: invalid YAML, or nested or large beyond reason.
    """
    try:
        value = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{where}: invalid YAML{place}: {_short(error.problem or error.context)}") from error
    except (RecursionError, _BeyondReasonError) as error:
        raise UserError(_beyond_reason(where)) from error
    except Exception as error:
        # Malformed scalars such as '!!bool x' or 2001-99-99 escape PyYAML as KeyError, ValueError and others.
        raise UserError(f"{where}: invalid YAML: {type(error).__name__}: {_short(str(error))}") from error
    _check_size(value, where)
    return value


def _check_size(root, where):
    """Refuse what aliases can make endless (a value inside itself) or exponentially large, and overlong numbers."""
    pending, count = [(root, 0)], 0
    while pending:
        value, depth = pending.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise UserError(_beyond_reason(where))
        if isinstance(value, int) and abs(value) >= 1 << 63:
            raise UserError(f"{where}: contains a whole number of more than 63 bits; use a smaller one")
        if isinstance(value, dict):
            pending += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, (list, tuple, set)):
            pending += [(item, depth + 1) for item in value]


def _short(text):
    """What PyYAML says, in one line and without the end of what it quotes."""
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:197] + "..."


def _beyond_reason(where):
    return f"{where}: nested or large beyond reason (at most {MAX_DEPTH} levels, {MAX_VALUES} values)"
