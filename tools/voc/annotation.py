"""Pascal VOC's annotation files, one XML file an image, as written by VOC and by labelling tools."""
from __future__ import annotations

import math
import os
import xml.etree.ElementTree as ElementTree
from typing import NamedTuple

from src.errors import UserError, is_plain, show

MAX_BYTES = 2**26  # VOC's own files have some thousand
MAX_SIDE = 2**31  # no image is larger
CORNERS = ("xmin", "ymin", "xmax", "ymax")
FLAGS = {None: 0, "0": 0, "1": 1, "false": 0, "true": 1}


class VocObject(NamedTuple):
    """One box."""
    name: str               # of the class
    corners: tuple          # (xmin, ymin, xmax, ymax) as the file has them
    difficult: int          # 0 or 1
    truncated: int | None   # 0 or 1, None if the file does not say


class VocFile(NamedTuple):
    """One annotation file."""
    path: str
    filename: str       # of the image, without folders; "" if there is none
    size: tuple | None  # (width, height) of the image in pixels, None if there is none
    objects: list[VocObject]


class _TreeWithoutDoctype(ElementTree.TreeBuilder):
    """Raises a ValueError at a document type declaration, which might define entities that fill the memory or read files."""

    def doctype(self, *_):
        raise ValueError("it declares a document type, which may define entities: remove its <!DOCTYPE ...>")


def read_voc(path: str) -> VocFile:
    """Read and check an annotation file.

    Objects are the direct children `object` of the root; the boxes of their parts are not read.

    Raises:
        UserError: it cannot be read, is too large or not XML, or something in it is missing or not a number.
    """
    root = _parse(path)
    if root.tag != "annotation":
        raise UserError(f"{path} is not a VOC annotation: its outermost element is <{show(root.tag)[1:-1]}>, not <annotation>.")
    # Some tools write the whole path, also with backslashes.
    filename = (_text(root, "filename", path) or "").replace("\\", "/").rsplit("/", 1)[-1]
    objects = [_object(element, f"{path}: object {number}") for number, element in enumerate(root.findall("object"), 1)]
    return VocFile(path, filename, _size(root, path), objects)


def _parse(path):
    try:
        if os.path.getsize(path) > MAX_BYTES:
            raise UserError(f"{path} has more than the {MAX_BYTES} bytes that are read: it is not one image's annotation.")
        return ElementTree.parse(path, ElementTree.XMLParser(target=_TreeWithoutDoctype())).getroot()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding that nobody knows
        raise UserError(f"{path} is not XML that can be read: {error}.") from error


def _text(parent, tag, where):
    """The stripped text of a child, None where there is no child or no text."""
    text = (parent.findtext(tag) or "").strip()
    if not is_plain(text):
        raise UserError(f"{where} has the {tag} {show(text)}: it must not contain line ends or other characters that cannot be "
                        "shown.")
    return text or None


def _size(root, path):
    """(width, height), None where the file has no <size>, or zeros, which tools write that did not open the image."""
    element = root.find("size")
    if element is None:
        return None
    size = tuple(_number(element, tag, f"{path}: its <size>") for tag in ("width", "height"))
    if size == (0, 0):
        return None
    if not all(side > 0 and side == int(side) for side in size):
        raise UserError(f"{path}: its <size> is {size[0]:g} x {size[1]:g}: whole numbers of at least 1 are needed; correct it or "
                        "remove it.")
    return int(size[0]), int(size[1])


def _object(element, where):
    name = _text(element, "name", where)
    if name is None:
        raise UserError(f"{where} has no <name>: each object needs a class.")
    where = f"{where} ({name})"
    box = element.find("bndbox")
    if box is None:
        raise UserError(f"{where} has no <bndbox>: boxes are needed, polygons and masks are not read.")
    corners = tuple(_number(box, tag, f"{where}: its <bndbox>") for tag in CORNERS)
    return VocObject(name, corners, _flag(element, "difficult", where) or 0, _flag(element, "truncated", where))


def _number(parent, tag, where):
    text = _text(parent, tag, where)
    if text is None:
        raise UserError(f"{where} has no <{tag}>.")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not abs(number) < MAX_SIDE:  # or it is no number
        raise UserError(f"{where} has the {tag} {show(text)}: a number of pixels is needed.")
    return number


def _flag(element, tag, where):
    """0 or 1, None where there is no such child."""
    if element.find(tag) is None:
        return None
    text = _text(element, tag, where)
    flag = FLAGS.get(text and text.lower())
    if flag is None:
        raise UserError(f"{where} has the {tag} {show(text)}: 0 or 1 is needed.")
    return flag
