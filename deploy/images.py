"""Which images are meant, what the drawings of them are called, and reading them upright as RGB: as infer.py does."""
from __future__ import annotations

import glob
import math
import os
import struct
import zlib

import cv2
import numpy as np

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".jp2", ".gif", ".avif", ".ppm", ".pgm",
              ".pbm", ".pnm", ".ras", ".sr")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg", ".wmv")
MAX_PIXELS = 2**27
JPEG_START, PNG_START, JPEG_END = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\xff\xd9"
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class InputError(Exception):
    """Something that the user can mend, in one sentence."""


def find_files(places: list[str]) -> list[str]:
    """The paths of the images and videos in `places`, files, folders and patterns, in this order and by name, each once.

    A file may be called anything. Of folders, which are not searched further down, and of what a pattern matches, those count
    whose names end as those of images or videos do.
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
    """A file name in `folder` for the drawing of each file: its own with .png, .mp4 or .jpg, or a longer one where that is
    taken."""
    names: list[str] = []
    taken = set()
    for path in paths:
        if os.path.realpath(folder) in (os.path.realpath(os.path.dirname(path)), os.path.dirname(os.path.realpath(path))):
            raise InputError(f"{path} is in {folder}, where the drawings go and might overwrite it; give another --output")
        stem, extension = os.path.splitext(os.path.basename(path))
        ending = ".png" if extension.lower() == ".png" else ".mp4" if is_video(path) else ".jpg"
        name, number = stem + ending, 2
        while name.lower() in taken:  # some file systems take names that differ in case for the same
            name, number = f"{stem}_{number}{ending}", number + 1
        taken.add(name.lower())
        names.append(name)
    return names


def is_video(path: str) -> bool:
    return path.lower().endswith(VIDEOS)


def read_image(path: str) -> np.ndarray:
    """(h, w, 3) uint8 RGB, turned as its EXIF data say.

    Raises:
        InputError: with the reason why it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise InputError(f"cannot be opened ({error.strerror})") from error
    size = _size_in_header(data)
    if size is not None and math.prod(size) > MAX_PIXELS:
        raise InputError(f"has {size[0]}x{size[1]} (height x width) pixels, more than the {MAX_PIXELS} that are decoded")
    # The decoders of other formats may give BGR whatever they are asked for.
    rgb = data.startswith((JPEG_START, PNG_START))
    order = cv2.IMREAD_COLOR_RGB if rgb else cv2.IMREAD_COLOR_BGR
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), order) if data else None
    except cv2.error as error:
        raise InputError(f"cannot be decoded ({error.err})") from error
    if image is None:
        raise InputError("cannot be decoded (empty, damaged, or not an image format that OpenCV knows)")
    return image if rgb else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _size_in_header(data):
    """The (height, width) that a JPEG or PNG file states, None of other formats; decoders fill the end of a truncated file with
    grey and say nothing."""
    try:
        if data.startswith(PNG_START):
            return _size_of_png(data)
        return _size_of_jpeg(data) if data.startswith(JPEG_START) else None
    except struct.error as error:
        raise InputError("the file is truncated") from error


def _size_of_png(data):
    """By its chunks up to the last one; the checksums of those that a decoder needs (an upper-case letter comes first) must
    hold."""
    position, size = len(PNG_START), None
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        [checksum] = struct.unpack_from(">I", data, end)
        if kind[:1].isupper() and zlib.crc32(memoryview(data)[position + 4:end]) != checksum:
            raise InputError("the PNG file is damaged (a checksum does not hold)")
        if kind == b"IHDR":
            size = struct.unpack_from(">II", data, position + 8)[::-1]
        if kind == b"IEND":
            return size
        position = end + 4


def _size_of_jpeg(data):
    """By its segments up to the first scan; an end marker before that belongs to a thumbnail."""
    position, size = 2, None
    while True:
        mark, marker, length = struct.unpack_from(">BBH", data, position)
        if mark != 0xFF:
            raise InputError("the JPEG file is damaged (a segment does not start where it should)")
        if marker == 0xFF:  # fill byte before a marker
            position += 1
            continue
        if marker in START_OF_FRAME:
            size = struct.unpack_from(">HH", data, position + 5)
        if marker == 0xDA:
            if data.rfind(JPEG_END, position) < 0:
                raise InputError("the file is truncated")
            return size
        position += 2 + length
