"""Finds, reads and parses COCO annotation files, and reads their classes."""
from __future__ import annotations

import json
import os
from collections.abc import Iterator

from src.errors import UserError, is_printable, short_repr

# COCO's files have 0.45 GB. Those of the largest public data sets in this format (LVIS, Objects365, OpenImages) have one to a
# few GB. A parsed file needs several times its size in memory.
MAX_BYTES = 2**33
LISTS = ("images", "annotations", "categories")


def existing_annotation_path(path: str) -> str:
    """Return `path` if it is a file, else the same path with the folder `annotation` instead of `annotations`, or vice versa.

    Raises:
        UserError: neither path is a file.
    """
    folder, name = os.path.split(path)
    parent, folder_name = os.path.split(folder)
    other_name = {"annotations": "annotation", "annotation": "annotations"}.get(folder_name)
    candidates = [path] + ([os.path.join(parent, other_name, name)] if other_name else [])
    for candidate in candidates:
        if os.path.isfile(candidate):
            return candidate
    there = [candidate for candidate in candidates if os.path.exists(candidate)]
    said = f"{there[0]} is not a file" if there else f"{' (or '.join(candidates)}{')' * (len(candidates) - 1)} does not exist"
    raise UserError(f"The annotation file {said}: check data.dataset_dir and the data.*_anno_path.")


def parse_annotations(path: str) -> dict:
    """Return the content of a COCO file without its segmentations: a dict with `info` and the lists named in LISTS.

    Raises:
        UserError: the file cannot be read, is too large, is not JSON, or lacks one of the lists.
    """
    try:
        size = os.path.getsize(path)
        if size > MAX_BYTES:
            raise UserError(f"The annotation file {path} has {size} bytes, more than the {MAX_BYTES} that are read: split the "
                            "data set, or leave out what boxes do not need.")
        with open(path, encoding="utf-8-sig") as file:  # with or without a byte order mark
            coco = json.load(file, object_hook=_without_segmentation)
    except OSError as error:
        raise UserError(f"The annotation file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"The annotation file {path} is not valid JSON: {error}.") from error
    except RecursionError as error:
        raise UserError(f"The annotation file {path} is not valid JSON for this program: it is nested too deeply.") from error
    except MemoryError as error:
        raise UserError(f"The annotation file {path} does not fit into the memory: split the data set.") from error
    for key in LISTS:
        if not isinstance(coco, dict) or not isinstance(coco.get(key), list):
            raise UserError(f"The annotation file {path} is not a COCO detection file: it has no list '{key}'.")
    for key in ("images", "categories"):
        if not coco[key]:
            raise UserError(f"The annotation file {path} has an empty list '{key}': there is nothing to learn from.")
    coco.setdefault("info", {})
    return coco


def _without_segmentation(node):
    # Polygons take most of the 2 GB that COCO needs in memory. This program uses boxes only.
    node.pop("segmentation", None)
    return node


def read_class_names(annotation_path: str) -> list[str]:
    """Return the class names by label, as `load_coco` does, without checking the images and boxes.

    Raises:
        UserError: the file is missing or is not COCO detection JSON.
    """
    path = existing_annotation_path(annotation_path)
    return read_classes(parse_annotations(path)["categories"], path)[0]


def is_integer(value) -> bool:
    """Return whether a JSON value is an integer of at most 63 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def check_id(identifier, seen: set, where: str) -> None:
    """Check that `identifier` is an integer that is not in the set `seen`, and add it to the set."""
    if not is_integer(identifier):
        raise UserError(f"{where} has the id {short_repr(identifier)}: an integer of at most 63 bits is needed.")
    if identifier in seen:
        raise UserError(f"{where} repeats the id {identifier}: ids must be unique.")
    seen.add(identifier)


def checked_entries(entries: list, kind: str, text_key: str, path: str) -> Iterator[dict]:
    """Yield the entries of a list of images or categories. Each must be a dict with a unique integer id and non-empty text."""
    seen = set()
    for number, entry in enumerate(entries):
        where = f"{path}: number {number} of '{kind}'"
        if not isinstance(entry, dict):
            raise UserError(f"{where} is not an object.")
        check_id(entry.get("id"), seen, where)
        text = entry.get(text_key)
        where = f"{where} (id {entry['id']}) has the {text_key} {short_repr(text)}"
        if not isinstance(text, str) or not text:
            raise UserError(f"{where}: a text is needed.")
        if not is_printable(text):
            raise UserError(f"{where}: it must not contain line ends or other characters that cannot be shown.")
        yield entry


def read_classes(categories: list, path: str) -> tuple[list[str], list[int]]:
    """Return the names and the category ids of the classes by label. Labels follow ascending category ids."""
    by_id = {entry["id"]: entry["name"] for entry in checked_entries(categories, "categories", "name", path)}
    category_ids = sorted(by_id)
    return [by_id[category_id] for category_id in category_ids], category_ids
