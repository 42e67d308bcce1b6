"""What the tools that write COCO's annotation files share: lists of names given by the user, and names in messages."""
from __future__ import annotations

from src.errors import UserError, is_plain

SHOWN = 5  # names in a message


def split_names(given: str) -> list[str]:
    """The class names in `given`, the text of --names, between commas.

    Raises:
        UserError: they are not different names.
    """
    names = [name.strip() for name in given.split(",")]
    if not all(names) or len(set(names)) < len(names) or not all(map(is_plain, names)):
        raise UserError(f"--names is {given!r}: different names between commas are needed, for example cat,dog.")
    return names


def read_list(path: str, kind: str) -> list[str]:
    """The lines of the file of --split, stripped, without empty ones; `kind` is what each one names.

    Raises:
        UserError: the file cannot be read, or is empty.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list {path} cannot be read ({error}); give --split a text file.") from error
    if not lines:
        raise UserError(f"the list {path} is empty: it must name at least one {kind}.")
    return lines


def some_of(names: list[str]) -> str:
    """The first SHOWN names with commas between them, and dots where there are more."""
    return ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)
