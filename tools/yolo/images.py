"""Images of YOLO's data sets, their label files, and lists of them."""
from __future__ import annotations

import logging
import os
from collections import defaultdict
from pathlib import Path

from src.dataset.image_paths import EXTENSIONS
from src.errors import UserError, is_plain, show
from tools.conversion import read_list, some_of

logger = logging.getLogger("faster_rcnn")

IMAGES, LABELS = "images", ".txt"
CLASSES = "classes.txt"  # LabelImg writes the classes' names into this file among the label files


def find_images(folder: str) -> list[str]:
    """The paths of the images in a folder and its subfolders, relative to it and sorted; the log counts other files.

    Raises:
        UserError: there is no such folder, no image in it, or a part of it cannot be read.
    """
    if not os.path.isdir(folder):
        raise UserError(f"there is no folder {folder!r}; give --images the folder with the images.")
    files = _files_below(folder)
    images = [name for name in files if name.lower().endswith(EXTENSIONS)]
    if not images:
        raise UserError(f"the folder {folder} has no image, which would end in {', '.join(EXTENSIONS)}; give another --images.")
    logger.info("%d images in %s, beside %d other files", len(images), folder, len(files) - len(images))
    return images


def label_paths(folder: str, images: list[str], labels: str | None) -> dict[str, str]:
    """{image: path of its label file, which may be missing}; the log names label files without an image.

    Args:
        folder: with the images.
        images: their paths relative to it.
        labels: folder with the label files. None: they are where Ultralytics looks for them, in a folder called labels in the
            place of the last one called images.

    Raises:
        UserError: a folder is missing, no image has a label file, or two have one and the same.
    """
    if labels is not None and not os.path.isdir(labels):
        raise UserError(f"there is no folder {labels!r}; give --labels the folder with the .txt files.")
    roots, paths, owners = set(), {}, {}
    for image in images:
        root, name = _label_place(folder, image, labels)
        path = os.path.join(root, name)
        if path in owners and os.path.lexists(path):
            raise UserError(f"{owners[path]} and {image} in {folder} would both have the boxes of {path}; remove one of them.")
        roots.add(root)
        paths[image], owners[path] = path, image
    found = {os.path.join(root, name) for root in roots if os.path.isdir(root) for name in _files_below(root)
             if name.lower().endswith(LABELS) and (os.path.basename(name) != CLASSES or os.path.join(root, name) in owners)}
    if found.isdisjoint(owners):
        raise UserError(f"none of the {len(images)} images in {folder} has a label file (the first would be {paths[images[0]]}); "
                        "give --labels the folder with the .txt files.")
    strays = sorted(found.difference(owners))
    if strays:
        logger.warning("%d of %d label files have no image in %s: %s", len(strays), len(found), folder, some_of(strays))
    return paths


def split_images(split: str, images: list[str], folder: str) -> set[str]:
    """Those of `images`, paths relative to `folder`, that the file `split` lists, one a line.

    A line may have further folders in front, of whatever machine, or only the end of the path.

    Raises:
        UserError: the list cannot be read, is empty, or a line means none or several of the images.
    """
    by_ending = defaultdict(list)
    for image in images:
        for ending in _endings(image):
            by_ending[ending].append(image)
    known, chosen = set(images), set()
    for line in read_list(split, "image"):
        endings = _endings(line)
        found = next(([ending] for ending in endings if ending in known), by_ending.get(endings[0], []))
        if not found:
            raise UserError(f"{split} lists {show(line)}, but {folder} has no such image.")
        if len(found) > 1:
            raise UserError(f"{split} lists {show(line)}, which may be {found[0]} or {found[1]} in {folder}; add its folder.")
        chosen.update(found)
    return chosen


def _endings(path):
    """The path, and its parts from the second, the third and so on, without `.` and slashes that mean nothing."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    return ["/".join(parts[start:]) for start in range(len(parts))] or [path]


def _label_place(folder, image, labels):
    """The folder of the label files of an image, and the path of its own below that; see `label_paths`."""
    name = os.path.splitext(image)[0] + LABELS
    if labels is not None:
        return labels, name
    parts = Path(os.path.abspath(os.path.join(folder, name))).parts
    if IMAGES not in parts[:-1]:
        raise UserError(f"{os.path.join(folder, image)} is in no folder called {IMAGES}, beside which its label file would be; "
                        "give --labels the folder with the .txt files.")
    place = max(number for number, part in enumerate(parts[:-1]) if part == IMAGES)
    root = os.path.join(*parts[:place], "labels")
    return root if os.path.isabs(folder) else os.path.relpath(root), os.path.join(*parts[place + 1:])


def _files_below(folder):
    """The paths of the files in a folder and its subfolders, relative to it and sorted; hidden ones do not count.

    Raises:
        UserError: a subfolder cannot be read, a link leads to a folder that is met twice, or a name has control characters.
    """
    found, met = [], {}
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        first = met.setdefault(os.path.realpath(place), place)
        if first != place:
            raise UserError(f"{first} and {place} are one folder, because of a link; remove that.")
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.relpath(os.path.join(place, name), folder) for name in names if not name.startswith(".")]
    strange = [name for name in found if not is_plain(name)]
    if strange:
        raise UserError(f"{folder} has a file {show(strange[0])}, whose name has line ends or other characters that cannot be "
                        "shown; rename it.")
    return sorted(found)


def _refuse(error):
    raise UserError(f"the folder {error.filename} cannot be read ({error.strerror}).") from error
