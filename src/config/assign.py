"""Put a mapping from a YAML file or a flag into a dataclass, setting by setting."""
import difflib
import typing
from dataclasses import fields, is_dataclass

from src.config.values import Limits, convert, describe
from src.errors import UserError, is_plain, show


def setting_fields(cls) -> dict:
    """{name: dataclass field} of all settings of `cls`; fields that no file may set are left out."""
    return {field.name: field for field in fields(cls) if "doc" in field.metadata}


def section_of(kind):
    """The dataclass behind `kind` (itself, or X of Optional[X]), or None where it is a plain value."""
    for option in (kind, *typing.get_args(kind)):
        if is_dataclass(option):
            return option
    return None


def setting_names(cls, prefix="") -> dict:
    """{dotted name: words for its type} of `cls` and all its sections."""
    kinds = typing.get_type_hints(cls)
    names = {}
    for name, field in setting_fields(cls).items():
        section = section_of(kinds[name])
        names[prefix + name] = describe(section or kinds[name], field.metadata["limits"])
        if section is not None:
            names.update(setting_names(section, f"{prefix}{name}."))
    return names


def assign(target, mapping, where, names, prefix="", origins=None):
    """Set attributes of the dataclass `target` from `mapping`; nested sections are merged key by key.

    Args:
        where: file or flag the mapping comes from, for messages.
        names: {dotted name: words for its type}, the valid names for suggestions.
        prefix: dotted name of `target` with a dot at the end, "" at the top.
        origins: optional dict that receives {dotted name: where} for what was set.

    Raises:
        UserError: unknown key, wrong type or value out of bounds.
    """
    settings, kinds = setting_fields(type(target)), typing.get_type_hints(type(target))
    for key, value in mapping.items():
        dotted = f"{prefix}{key}"
        if key not in settings:
            raise UserError(f"{where}: unknown key {show(dotted)}; {suggestion(dotted, names)}")
        section = section_of(kinds[key])
        if section is not None and isinstance(value, dict):
            if getattr(target, key) is None:
                setattr(target, key, section())
            assign(getattr(target, key), value, where, names, dotted + ".", origins)
        else:
            setattr(target, key, _accept(value, kinds[key], settings[key], dotted, where))
        if origins is not None:
            origins[dotted] = where


def _accept(value, kind, field, dotted, where):
    limits = field.metadata["limits"]
    if field.metadata["parse"] is not None:
        return field.metadata["parse"](value, dotted, where)
    if section_of(kind) is not None:
        if value in (None, "None") and not is_dataclass(kind):
            return None
        raise UserError(f"{where}: {dotted} must be {describe(kind, Limits())}, not {show(value)}")
    if value in (None, "None") and field.default == "":
        return ""
    try:
        return convert(value, kind, limits)
    except ValueError:
        message = f"{where}: {dotted} must be {describe(kind, limits)}, not {show(value)}"
    raise UserError(message + _hint(value, kind, limits))


def _hint(value, kind, limits):
    near = nearest(value, [choice for choice in limits.choices if isinstance(choice, str)])
    if near is not None:
        return f"; did you mean '{near}'?"
    values = value if isinstance(value, list) else [value]
    if any(isinstance(item, str) and not is_plain(item) for item in values):
        return "; leave out line ends and other characters that cannot be shown"
    if "text" in describe(kind, limits) and any(not isinstance(item, (str, list, dict, type(None))) for item in values):
        return "; put text that looks like a number, a date or a yes or no in quotes"
    return ""


def nearest(word, candidates):
    """The candidate that `word` was probably meant to be, whatever its case, or None."""
    lower = {str(candidate).lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(str(word).lower(), list(lower), n=1)
    return lower[close[0]] if close else None


def suggestion(dotted, names) -> str:
    """'did you mean ...?' for an unknown dotted name, or the valid names beside it where nothing is near."""
    parent, _, leaf = dotted.rpartition(".")
    same_leaf = [name for name in names if name.rpartition(".")[2] == leaf]
    siblings = {name.rpartition(".")[2]: name for name in names if name.rpartition(".")[0] == parent}
    beside = nearest(leaf, siblings)
    if same_leaf:
        near = max(same_leaf, key=lambda name: difflib.SequenceMatcher(None, dotted, name).ratio())
    else:
        near = siblings.get(beside) or nearest(dotted, [name for name in names if not dotted.startswith(name + ".")])
    if near is None:
        outermost = min(name.count(".") for name in names)
        return "valid names here are " + ", ".join(siblings or [name for name in names if name.count(".") == outermost])
    return f"did you mean '{near}' ({names[near]})?"
