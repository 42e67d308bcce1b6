"""The base class of all sections of settings, the types of their values, and the sentence about an invalid value."""
from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import reduce
from typing import Annotated, Any, Callable, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from src.errors import is_printable, short_repr

# Upper limits of settings are far above useful values, so that a typo cannot request all memory and numbers stay within fp32.
MAX_INT = 2**31 - 1


class UnknownKeyError(ValueError):
    """A key that is not allowed in its place. Arguments: the key, and the allowed names."""


class Section(BaseModel):
    """A group of settings. Attributes are read-only, an int cannot be a bool or numeric text, and numbers are finite."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _read_keys(cls, section: Any) -> Any:
        if not isinstance(section, dict):
            raise ValueError(f"must be a section with the keys {', '.join(cls.model_fields)}, not {short_repr(section)}")
        if unknown := [key for key in section if key not in cls.model_fields]:
            raise UnknownKeyError(unknown[0], cls.model_fields)
        # YAML reads the bare word None as text.
        return {key: None if value == "None" else value for key, value in section.items()}


def setting(default: Any, description: str, **bounds: Any) -> Any:
    """Return pydantic's Field of a setting: default, description (meaning and unit in one line, for --help) and bounds."""
    return Field(default, description=description, **bounds)


def must_be(allowed: str, holds: Callable[[Any], bool]) -> AfterValidator:
    """Return a validator that refuses values for which `holds` is False; `allowed` describes the allowed values."""
    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError(f"must be {allowed}, not {short_repr(value)}")
        return value
    return AfterValidator(check)


def null_as(value: Any) -> BeforeValidator:
    """Return a validator that replaces null with `value`."""
    return BeforeValidator(lambda given: value if given is None else given)


def _read_number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value  # YAML 1.1 reads 5e-5 as text
    except ValueError:
        return value


Text = Annotated[str, must_be("text without line ends and other characters that cannot be shown", is_printable)]
OptionalText = Annotated[Text, null_as("")]
NoneText = null_as("none")
Number = Annotated[float, BeforeValidator(_read_number)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
Natural = Annotated[int, Field(ge=0, le=MAX_INT)]
Count = Annotated[int, Field(ge=1, le=MAX_INT)]
NotEmpty = Field(min_length=1)
Ascending = must_be("an ascending list", lambda values: all(low < high for low, high in zip(values, values[1:])))

# Parts of pydantic's messages, and what they become in a sentence that begins with 'KEY must be'.
WORDS = {"Input should be ": "", "Value error, must be ": "", "List should have": "a list of", "valid integer": "whole number",
         "a valid boolean": "True or False", "a valid string": "text (in quotes if YAML reads it as something else)",
         "a valid ": "a ", "greater than or equal to": "at least", "less than or equal to": "at most"}


def sentence(error: ValidationError, layer: dict, root: type[Section]) -> str:
    """Return the error in `layer`, a nested dict that is not a valid `root`: dotted key, allowed values, actual value."""
    # If a setting accepts several types, pydantic reports an error for each; the deepest one is from the type that was meant.
    found = [(_dotted(layer, item["loc"]), item) for item in error.errors(include_url=False)]
    dotted, first = max(found, key=lambda row: len(row[0]))
    reason = first.get("ctx", {}).get("error")
    if isinstance(reason, UnknownKeyError):
        return _unknown(dotted, str(reason.args[0]), list(reason.args[1]), root)
    if reason:
        return f"{dotted} {reason}"
    allowed = [item["msg"].partition(" after validation")[0] for name, item in found if name == dotted]
    for words, ours in WORDS.items():
        allowed = [message.replace(words, ours) for message in allowed]
    return f"{dotted} must be {' or '.join(dict.fromkeys(allowed))}, not {short_repr(first['input'])}"


def _dotted(layer: Any, loc: tuple) -> str:
    """Return the dotted name of pydantic's location in `layer`, without the names of types in it."""
    dotted = ""
    for part in loc:
        if isinstance(layer, dict) and part in layer or isinstance(layer, list) and isinstance(part, int):
            dotted, layer = f"{dotted}[{part}]" if isinstance(part, int) else f"{dotted}.{part}", layer[part]
    return dotted.lstrip(".")


def _unknown(section: str, key: str, names: list[str], root: type[Section]) -> str:
    """Return the sentence about an unknown key in a section that allows `names`, with the most similar name."""
    prefix = f"{section}." if section else ""
    # Settings with the same last part: one in this section wins.
    known = {name.rpartition(".")[2].lower(): name for name in (*setting_names(root), *(prefix + name for name in names))}
    close = difflib.get_close_matches(key.lower(), known, n=1)
    hint = f"did you mean '{known[close[0]]}'?" if close else f"valid names here are {', '.join(names)}"
    return f"unknown key {short_repr(prefix + key)}; {hint}"


def flat_settings(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as {dotted name: value}. Transforms in a list become sections of the parent section, and the value
    of `item_transforms` becomes the list of their names."""
    flat: dict[str, Any] = {}
    if steps := settings.get("item_transforms"):
        settings = reduce(dict.__or__, steps, {"item_transforms": [name for step in steps for name in step]})
    for key, value in settings.items():
        flat.update(flat_settings(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def differing_settings(before: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (dotted name, value before, value now) of each difference between nested settings; missing settings are None."""
    before, now = flat_settings(before), flat_settings(now)
    return [(name, before.get(name), now.get(name)) for name in {**before, **now} if before.get(name) != now.get(name)]


def setting_names(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all settings of `section` and its subsections."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if hasattr(kind, "model_fields"):
                yield from setting_names(kind, f"{prefix}{name}.")
