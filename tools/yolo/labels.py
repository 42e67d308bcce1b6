"""YOLO's label files, a text file an image, and the names of their classes."""
from __future__ import annotations

import math
import os
from typing import NamedTuple

from src.config.compose import parse_yaml
from src.dataset.annotation_file import is_integer
from src.errors import UserError, is_plain, show
from tools.conversion import split_names

MAX_BYTES = 2**26  # of a label file or of names; a thousand polygons of a thousand points take some 2**24
BOX, TRIANGLE = 5, 7  # numbers in the line of a box, and in that of the smallest polygon


class YoloObject(NamedTuple):
    """One line of a label file."""
    where: str       # file and line, for messages
    number: int      # of the class, from 0
    points: list     # of (x, y), fractions of the image's width and height: the polygon, or two opposite corners of the box
    is_polygon: bool


def read_labels(path: str, names: list[str]) -> list[YoloObject] | None:
    """Read and check a label file of classes called `names`; None where there is no such file.

    Raises:
        UserError: it cannot be read, or a line is neither a box nor a polygon of one of the classes.
    """
    if not os.path.lexists(path):
        return None
    lines = _read_text(path).split("\n")
    return [_read_line(line.split(), names, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def read_names(given: str) -> list[str]:
    """The classes by their numbers: `given` between commas, or in the file of that path, which is YOLO's data.yaml or has one a
    line.

    Raises:
        UserError: there is no such file, or it has no names.
    """
    is_yaml = given.lower().endswith((".yaml", ".yml"))
    if not os.path.lexists(given):
        if is_yaml or given.lower().endswith(".txt"):
            raise UserError(f"there is no file {given!r}; give --names a file with the classes' names, or the names themselves.")
        return split_names(given)
    names = _names_of_yaml(given) if is_yaml else [line.strip() for line in _read_text(given).rstrip().split("\n")]
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or not is_plain(name):
            raise UserError(f"{given}: the name of class {number} is {show(name)}; a text is needed, in YAML perhaps in quotes.")
        if name in names[:number]:
            raise UserError(f"{given} has the name {name!r} twice; each class needs its own.")
    return names


def _read_text(path):
    """The text of a file with line ends \\n."""
    try:
        if not os.path.isfile(path):  # opening a pipe would wait for ever
            raise UserError(f"{path} is not a file that can be read; correct or remove it.")
        if os.path.getsize(path) > MAX_BYTES:
            raise UserError(f"{path} has more than the {MAX_BYTES} bytes that are read.")
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}).") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def _names_of_yaml(path):
    """What a data.yaml has as `names`, numbers as text, in a list."""
    content = parse_yaml(_read_text(path), path)
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        if not all(type(key) is int for key in names) or sorted(names) != list(range(len(names))):
            raise UserError(f"{path}: its names have the numbers {show(list(names))}; all from 0 to {len(names) - 1} are needed.")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path} has no names; it needs names: [cat, dog], or a line such as 0: cat for each below names:.")
    return [str(name) if is_integer(name) else name for name in names]


def _read_line(words, names, where):
    numbers = [_number(word, where) for word in words]
    if len(numbers) != BOX and (len(numbers) < TRIANGLE or len(numbers) % 2 == 0):
        raise UserError(f"{where} has {len(numbers)} numbers; a class and the 4 of a box, or x and y of at least 3 points, are "
                        "needed.")
    label, *values = numbers
    if not (label.is_integer() and 0 <= label < len(names)):
        raise UserError(f"{where} has the class {show(words[0])}, but --names has {len(names)}, counted from 0: correct it, or "
                        "add the name.")
    if len(numbers) > BOX:
        return YoloObject(where, int(label), list(zip(values[::2], values[1::2])), True)
    x, y, width, height = values
    if min(width, height) < 0:
        raise UserError(f"{where} has the width {width:g} and the height {height:g}: neither may be negative; correct it.")
    corners = [(x - width / 2, y - height / 2), (x + width / 2, y + height / 2)]
    return YoloObject(where, int(label), corners, False)


def _number(word, where):
    try:
        # float() would read 1_0 and digits of other scripts as well, which no program writes.
        number = float(word) if word.isascii() and "_" not in word else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where} has {show(word)} where a number is needed.")
    return number
