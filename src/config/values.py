"""What one setting may hold: its declaration, its conversion from YAML, and the words for it in messages."""
import dataclasses
import math
import typing
from typing import Optional

from src.errors import is_plain


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of a setting. For lists, all but `length`, `shortest` and `ascending` apply to the values inside."""

    choices: tuple = ()
    low: Optional[float] = None
    high: Optional[float] = None
    above: Optional[float] = None
    length: Optional[int] = None
    shortest: int = 1
    ascending: bool = False


def setting(default, doc, parse=None, **limits):
    """A dataclass field that a YAML file may set.

    Args:
        default: value when no file and no flag sets it; lists are copied for each instance.
        doc: meaning and unit, one line; `--help` shows it.
        parse: optional function (value, dotted, where) -> value for settings with a structure of their own.
        limits: see `Limits`.
    """
    metadata = {"doc": doc, "parse": parse, "limits": Limits(**limits)}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: _copy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _copy(value):
    return [_copy(item) for item in value] if isinstance(value, list) else value


def convert(value, kind, limits: Limits):
    """`value`, as YAML gives it, as the type `kind` within `limits`.

    Whole numbers and numeric text (YAML 1.1 reads 5e-5 as text) become floats where a float is wanted. The bare word
    None, which YAML reads as text, is null.

    Raises:
        ValueError: the value does not fit.
    """
    if value is None or value == "None":
        return _convert_null(kind, limits)
    origin = typing.get_origin(kind)
    if origin is typing.Union:
        return _convert_first(value, typing.get_args(kind), limits)
    if origin is list:
        return _convert_list(value, typing.get_args(kind)[0], limits)
    value = _convert_scalar(value, kind)
    if limits.choices and value not in limits.choices:
        raise ValueError("not one of the choices")
    if kind in (int, float) and not _in_range(value, limits):
        raise ValueError("out of range")
    return value


def _convert_null(kind, limits):
    if type(None) in typing.get_args(kind):
        return None
    if "none" in limits.choices:
        return "none"
    raise ValueError("null")


def _convert_first(value, kinds, limits):
    for kind in kinds:
        try:
            return convert(value, kind, limits)
        except ValueError:
            continue
    raise ValueError("fits none of the types")


def _convert_list(value, kind, limits):
    if not isinstance(value, list):
        raise ValueError("not a list")
    if len(value) < limits.shortest or (limits.length is not None and len(value) != limits.length):
        raise ValueError("wrong length")
    inner = dataclasses.replace(limits, length=None, ascending=False)
    # The text None inside a list is a name like any other.
    result = [item if kind is str and item == "None" else convert(item, kind, inner) for item in value]
    if limits.ascending and any(later <= earlier for earlier, later in zip(result, result[1:])):
        raise ValueError("not ascending")
    return result


def _convert_scalar(value, kind):
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError as error:
            raise ValueError("too large") from error
    # bool is a subclass of int, so the exact type counts.
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ValueError("wrong type")
    if kind is str and not is_plain(value):
        raise ValueError("control characters")
    return value


def _in_range(value, limits):
    return ((limits.low is None or value >= limits.low) and (limits.high is None or value <= limits.high)
            and (limits.above is None or value > limits.above))


def describe(kind, limits: Limits) -> str:
    """Words for what `convert` accepts, such as 'a whole number of at least 1'."""
    if dataclasses.is_dataclass(kind):
        return "a section with the keys " + ", ".join(field.name for field in dataclasses.fields(kind))
    origin = typing.get_origin(kind)
    if origin is typing.Union:
        options = sorted(typing.get_args(kind), key=lambda option: option is not type(None))
        return " or ".join(describe(option, limits) for option in options)
    if origin is list:
        return _describe_list(typing.get_args(kind)[0], limits)
    if kind in (bool, type(None)) and not limits.choices:
        return "True or False" if kind is bool else "None"
    if limits.choices:
        return ("one of " if len(limits.choices) > 1 else "") + ", ".join(map(str, limits.choices))
    return {int: "a whole number", float: "a number", str: "text"}[kind] + ("" if kind is str else _range(limits))


def _describe_list(kind, limits):
    text = "an ascending list" if limits.ascending else "a list"
    if kind is dict:
        return text + " of transforms"
    if limits.length is not None:
        text += f" of {limits.length}"
    return f"{text}, each {describe(kind, dataclasses.replace(limits, length=None, ascending=False))}"


def _range(limits):
    if limits.low is not None and limits.high is not None:
        return f" from {limits.low} to {limits.high}"
    if limits.above is not None and limits.high is not None:
        return f" above {limits.above} and at most {limits.high}"
    if limits.above is not None:
        return f" above {limits.above}"
    return "" if limits.low is None else f" of at least {limits.low}"
