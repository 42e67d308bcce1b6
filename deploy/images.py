"""Finds input images, chooses names for the drawings, and reads images upright as RGB, as infer.py does."""
from __future__ import annotations

import glob
import os

import cv2
import numpy as np

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".jp2", ".gif", ".avif", ".ppm", ".pgm",
              ".pbm", ".pnm", ".ras", ".sr")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg", ".wmv")
RGB_STARTS = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"  # of JPEG and PNG, whose decoders can return RGB


class InputError(Exception):
    """An error that the user can fix, described in one sentence."""


def find_files(places: list[str]) -> list[str]:
    """Return the paths of the images and videos in `places`, a list of files, folders and patterns, without duplicates.

    A file may have any name. In folders and among the matches of a pattern, only files with the extension of an image or a video
    are used. Folders are searched without their subfolders. The order is that of `places`, then by name.
    """
    return list(dict.fromkeys(path for place in places for path in _files_of(os.path.expanduser(place))))


def _files_of(place):
    if os.path.isfile(place):
        return [place]
    listed = [os.path.join(place, name) for name in sorted(os.listdir(place))] if os.path.isdir(place) else sorted(
        glob.glob(place, recursive=True))
    found = [path for path in listed if os.path.isfile(path) and path.lower().endswith(EXTENSIONS + VIDEOS)
             and not os.path.basename(path).startswith(".")]
    if not found:
        raise InputError(f"there is no image or video {place!r}, nor one in a folder or for a pattern of that name")
    print(f"{len(found)} files in {place}, beside {len(listed) - len(found)} others")
    return found


def drawing_names(paths: list[str], folder: str) -> list[str]:
    """Return a unique file name in `folder` for the drawing of each file: the file's name with .png, .mp4 or .jpg, or a longer
    one."""
    names: list[str] = []
    taken = set()
    for path in paths:
        if os.path.realpath(folder) in (os.path.realpath(os.path.dirname(path)), os.path.dirname(os.path.realpath(path))):
            raise InputError(f"{path} is in {folder}, where the drawings go and might overwrite it; give another --output")
        stem, extension = os.path.splitext(os.path.basename(path))
        ending = ".png" if extension.lower() == ".png" else ".mp4" if is_video(path) else ".jpg"
        name, number = stem + ending, 2
        while name.lower() in taken:  # some file systems ignore case
            name, number = f"{stem}_{number}{ending}", number + 1
        taken.add(name.lower())
        names.append(name)
    return names


def is_video(path: str) -> bool:
    return path.lower().endswith(VIDEOS)


def read_image(path: str) -> np.ndarray:
    """Return the image (h, w, 3) uint8 RGB, rotated as its EXIF data say.

    Raises:
        InputError: the image cannot be read; the message is the reason.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise InputError(f"cannot be opened ({error.strerror})") from error
    rgb = data.startswith(RGB_STARTS)
    order = cv2.IMREAD_COLOR_RGB if rgb else cv2.IMREAD_COLOR_BGR
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), order) if data else None
    except cv2.error as error:
        raise InputError(f"cannot be decoded ({error.err})") from error
    if image is None:
        raise InputError("cannot be decoded (empty, damaged, or not an image format that OpenCV knows)")
    return image if rgb else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
