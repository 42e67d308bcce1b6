"""Turn pydantic's errors into one sentence about an invalid setting."""
import difflib
import re
from collections.abc import Iterable
from typing import Any, Optional, get_args

from pydantic import ValidationError

from src.config.values import Section
from src.errors import short_repr

# The words after "must be" for pydantic's error types; for types not listed here, its message says "Input should be ...".
ALLOWED = {
    "int_type": "a whole number", "float_type": "a number", "bool_type": "True or False", "string_type": "text",
    "list_type": "a list", "too_short": "a list of {min_length} or more", "too_long": "a list of {max_length} or fewer",
    "greater_than_equal": "at least {ge}", "greater_than": "a number above {gt}", "less_than_equal": "at most {le}",
}


def sentence(error: ValidationError, layer: dict, root: type[Section]) -> str:
    """Return the error in `layer`, a nested dict that is not a valid `root`: dotted key, allowed values, actual value."""
    first, *others = error.errors(include_url=False)
    dotted, value = _locate(layer, first["loc"])
    if first["type"] == "unknown_key":
        (key, section), prefix = first["ctx"]["found"], f"{dotted}." if dotted else ""
        return f"unknown key {short_repr(f'{prefix}{key}')}; {_suggestion(prefix, str(key), section, root)}"
    if first["type"] == "value_error":
        return f"{dotted} {first['ctx']['error']}"
    # If a setting accepts several types, pydantic reports an error for each type.
    found = [first, *(other for other in others if _locate(layer, other["loc"])[0] == dotted)]
    allowed = dict.fromkeys(_allowed(item) for item in found)
    return f"{dotted} must be {' or '.join(allowed)}, not {short_repr(value)}{_hint(found[-1], value)}"


def _locate(layer: dict, loc: tuple) -> tuple[str, Any]:
    """Return the dotted name and the value at pydantic's location, without the names of types in it."""
    dotted, value = "", layer
    for part in loc:
        if not (isinstance(value, dict) and part in value) and not (isinstance(value, list) and isinstance(part, int)):
            continue
        dotted, value = f"{dotted}[{part}]" if isinstance(part, int) else f"{dotted}.{part}", value[part]
    return dotted.lstrip("."), value


def _allowed(error: Any) -> str:
    if error["type"] not in ALLOWED:
        return error["msg"].replace("Input should be ", "", 1)
    bounds = error.get("ctx", {}).items()
    return ALLOWED[error["type"]].format(**{key: int(value) if value == value // 1 else value for key, value in bounds
                                            if isinstance(value, (int, float))})


def _hint(error: Any, value: Any) -> str:
    if error["type"] == "literal_error":
        near = nearest(value, re.findall("'([^']+)'", error["ctx"]["expected"]))
        return f"; did you mean '{near}'?" if near else ""
    if error["type"] == "string_type" and not isinstance(value, (list, dict, type(None))):
        return "; put text that looks like a number, a date or a yes or no in quotes"
    return ""


def nearest(word: Any, candidates: Iterable[str]) -> Optional[str]:
    """Return the candidate that `word` was probably meant to be, ignoring case, or None."""
    lower = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(str(word).lower(), list(lower), n=1)
    return lower[close[0]] if close else None


def setting_names(section: type[Section], prefix: str = "") -> dict:
    """Return {dotted name: description} of all settings of `section` and its subsections."""
    names = {}
    for name, field in section.model_fields.items():
        names[prefix + name] = field.description
        for kind in (field.annotation, *get_args(field.annotation)):
            if hasattr(kind, "model_fields"):
                names.update(setting_names(kind, f"{prefix}{name}."))
    return names


def _suggestion(prefix: str, key: str, section: type[Section], root: type[Section]) -> str:
    """Return 'did you mean ...?' for the unknown name prefix + key, or the section's valid names if none is similar."""
    names = {**setting_names(root), **setting_names(section, prefix)}
    by_key = {name.rpartition(".")[2]: name for name in names}
    same_key = [name for name in names if name.rpartition(".")[2] == key]
    if same_key:
        near = max(same_key, key=lambda name: difflib.SequenceMatcher(None, prefix + key, name).ratio())
    elif beside := nearest(key, section.model_fields):
        near = prefix + beside
    else:
        near = by_key.get(nearest(key, by_key))
    return f"did you mean '{near}' ({names[near]})?" if near else f"valid names here are {', '.join(section.model_fields)}"
