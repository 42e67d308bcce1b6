"""Annotation files of Pascal VOC: one XML file a image, as VOC itself and the labelling tools write them."""
import math
import os
import xml.etree.ElementTree as ElementTree
from typing import NamedTuple, Optional

from src.errors import UserError, is_plain, show

MAX_BYTES = 2**26  # VOC's own files have some thousand
MAX_SIDE = 2**31  # no image is larger
CORNERS = ("xmin", "ymin", "xmax", "ymax")
FLAGS = {None: 0, "0": 0, "1": 1, "false": 0, "true": 1}


class VocObject(NamedTuple):
    """One box. `corners` are (xmin, ymin, xmax, ymax) as the file has them; `truncated` is 0 or 1, None if it does not say."""
    name: str
    corners: tuple
    difficult: int
    truncated: Optional[int]


class VocFile(NamedTuple):
    """One annotation file. `filename` is the image's without folders, "" if there is none; `size` is (width, height) in pixels,
    None if there is none."""
    path: str
    filename: str
    size: Optional[tuple]
    objects: list


class _TreeWithoutDoctype(ElementTree.TreeBuilder):
    """Ends the parsing at a document type declaration, the only place where entities can be declared: those that multiply
    take all memory, and those of other files read them. No annotation has one."""

    def doctype(self, *_):
        raise ValueError("it declares a document type, which may define entities: remove its <!DOCTYPE ...>")


def read_voc(path):
    """Read and check an annotation file.

    Objects are the direct children `object` of the root, so that the boxes of their parts do not count.

    Returns a VocFile. Raises UserError when it cannot be read, is too large, no XML, or something in it is missing or no number.
    """
    root = _parse(path)
    if root.tag != "annotation":
        raise UserError(f"{path} is not a VOC annotation: its outermost element is <{show(root.tag)[1:-1]}>, not <annotation>.")
    # Some tools write the whole path, on any system.
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
    """The text of a child without the spaces around it, None where there is no child or no text."""
    text = (parent.findtext(tag) or "").strip()
    if not is_plain(text):
        raise UserError(f"{where} has the {tag} {show(text)}: it must not contain line ends or other characters that cannot be "
                        "shown.")
    return text or None


def _size(root, path):
    """(width, height), None where the file has no <size>, or one of zeros, as tools write that did not open the image."""
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
    if (text and text.lower()) not in FLAGS:
        raise UserError(f"{where} has the {tag} {show(text)}: 0 or 1 is needed.")
    return FLAGS[text and text.lower()]
