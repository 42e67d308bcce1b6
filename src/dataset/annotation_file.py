"""Annotation files found, read and parsed."""
import json
import os

from src.errors import UserError

# The largest public sets in COCO's format (LVIS, Objects365, OpenImages) have files of one to some gigabytes, COCO itself of
# 0.45 GB; parsed, a file takes several times its size in memory.
MAX_BYTES = 2**33
LISTS = ("images", "annotations", "categories")


def existing_annotation_path(path):
    """`path`, or its like in a folder `annotation` instead of `annotations`, or the reverse.

    Raises:
        UserError: neither is a file.
    """
    folder, name = os.path.split(path)
    parent, folder_name = os.path.split(folder)
    other_name = {"annotations": "annotation", "annotation": "annotations"}.get(folder_name)
    candidates = [path] + ([os.path.join(parent, other_name, name)] if other_name else [])
    for candidate in candidates:
        if os.path.isfile(candidate):
            return candidate
    for candidate in candidates:
        if os.path.exists(candidate):
            raise UserError(f"The annotation file {candidate} is not a file: check data.dataset_dir and the data.*_anno_path.")
    raise UserError(f"The annotation file {' (or '.join(candidates)}{')' * (len(candidates) - 1)} does not exist: "
                    f"check data.dataset_dir and the data.*_anno_path.")


def parse_annotations(path):
    """The content of a COCO file without its segmentations: a dict with the lists of LISTS and `info`.

    Raises:
        UserError: the file cannot be read, is too large, no JSON, or lacks one of the lists.
    """
    try:
        size = os.path.getsize(path)
        if size > MAX_BYTES:
            raise UserError(f"The annotation file {path} has {size} bytes, more than the {MAX_BYTES} that are read: split the "
                            "data set, or leave out what boxes do not need.")
        with open(path, encoding="utf-8-sig") as file:  # with or without the mark that some programs put first
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
    # Polygons are most of COCO's 2 GB in memory, and boxes are all that this program uses.
    node.pop("segmentation", None)
    return node
