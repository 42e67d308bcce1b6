"""Finds input images, and chooses file names for the drawings of them."""
from __future__ import annotations

import glob
import logging
import os

from src.errors import UserError

logger = logging.getLogger("faster_rcnn")

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".jp2", ".gif", ".avif", ".ppm", ".pgm",
              ".pbm", ".pnm", ".ras", ".sr")


def find_images(places: list[str]) -> list[str]:
    """Return the paths of the images in `places`, a list of files, folders and patterns, without duplicates.

    A file may have any name. In folders and among the matches of a pattern, only files with an image extension are used; the log
    counts the ignored files. Folders are searched without their subfolders. The order is that of `places`, then by name.

    Raises:
        UserError: a place does not exist or contains no image.
    """
    if not places:
        raise UserError("there is nothing to detect on; give --image an image, a folder of images or a pattern such as "
                        "'folder/*.jpg'.")
    return list(dict.fromkeys(path for place in places for path in _images_of(os.path.expanduser(place))))


def drawing_names(paths: list[str], folder: str) -> list[str]:
    """Return a unique file name in `folder` for the drawing of each image: the image's name with .png or .jpg, or a longer one.

    Raises:
        UserError: an image is in `folder`, where a drawing could overwrite it.
    """
    names, taken = [], set()
    for path in paths:
        if os.path.realpath(folder) in (os.path.realpath(os.path.dirname(path)), os.path.dirname(os.path.realpath(path))):
            raise UserError(f"{path} is in {folder}, where the drawings go and might overwrite it; give another --save_dir.")
        stem, extension = os.path.splitext(os.path.basename(path))
        ending = ".png" if extension.lower() == ".png" else ".jpg"
        name, number = stem + ending, 2
        while name.lower() in taken:  # some file systems ignore case
            name, number = f"{stem}_{number}{ending}", number + 1
        taken.add(name.lower())
        names.append(name)
    return names


def _images_of(place):
    if os.path.isfile(place):
        return [place]
    if os.path.isdir(place):
        return _images_among([os.path.join(place, name) for name in sorted(os.listdir(place))], f"in the folder {place}")
    matches = sorted(glob.glob(place, recursive=True))
    if not matches:
        raise UserError(f"there is no file, folder or match for a pattern {place!r}; correct --image.")
    return _images_among(matches, f"among the matches of {place}")


def _images_among(paths, where):
    files = [path for path in paths if os.path.isfile(path)]
    images = [path for path in files if path.lower().endswith(EXTENSIONS) and not os.path.basename(path).startswith(".")]
    others = f"{len(files) - len(images)} other files and {len(paths) - len(files)} folders, which are not searched"
    if not images:
        raise UserError(f"there is no image {where}, only {others}; give --image files that end in {', '.join(EXTENSIONS)}.")
    logger.info("%d images %s%s", len(images), where, f", beside {others}" if len(images) < len(paths) else "")
    return images
