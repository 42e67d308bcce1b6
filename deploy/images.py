"""Finds and reads images, chooses names for the drawings, and formats detections.json: for detect.py and for infer.py."""
from __future__ import annotations

import glob
import json
import os
from collections import Counter
from collections.abc import Callable

import cv2
import numpy as np

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".jp2", ".gif", ".avif", ".ppm", ".pgm",
              ".pbm", ".pnm", ".ras", ".sr")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg", ".wmv")
RGB_STARTS = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"  # of JPEG and PNG, whose decoders can return RGB


class InputError(Exception):
    """An error that the user can fix, described in one sentence without its full stop."""


def find_files(places: list[str], extensions: tuple[str, ...] = EXTENSIONS + VIDEOS,
               report: Callable[[str], object] = print) -> list[str]:
    """Return the paths of the images and videos in `places`, a list of files, folders and patterns, without duplicates.

    A file may have any name. In folders (without their subfolders) and among the matches of a pattern, only files with one of the
    `extensions` are used, and `report` gets a line with their number. The order is that of `places`, then by name.

    Raises:
        InputError: a place does not exist or contains no such file.
    """
    return list(dict.fromkeys(path for place in places for path in _files_of(os.path.expanduser(place), extensions, report)))


def _files_of(place, extensions, report):
    if os.path.isfile(place):
        return [place]
    listed = [os.path.join(place, name) for name in sorted(os.listdir(place))] if os.path.isdir(place) else sorted(
        glob.glob(place, recursive=True))
    found = [path for path in listed if os.path.isfile(path) and path.lower().endswith(extensions)
             and not os.path.basename(path).startswith(".")]
    if not found:
        raise InputError(f"there is no file {place!r}, and no file that ends with {', '.join(extensions)} in a folder or for a "
                         "pattern of that name")
    report(f"{len(found)} files in {place}; {len(listed) - len(found)} other files and folders are ignored")
    return found


def drawing_names(paths: list[str], folder: str) -> list[str]:
    """Return a unique file name in `folder` for the drawing of each file: the file's name with .png, .mp4 or .jpg, or a longer
    one.

    Raises:
        InputError: a file is in `folder`, where a drawing could overwrite it.
    """
    names: dict[str, str] = {}  # by the name in lower case, because some file systems ignore case
    for path in paths:
        if os.path.realpath(folder) in (os.path.realpath(os.path.dirname(path)), os.path.dirname(os.path.realpath(path))):
            raise InputError(f"{path} is in {folder}, where the drawings are written and might overwrite it; choose another "
                             "folder for the drawings")
        stem, extension = os.path.splitext(os.path.basename(path))
        ending = ".png" if extension.lower() == ".png" else ".mp4" if is_video(path) else ".jpg"
        name, number = stem + ending, 2
        while name.lower() in names:
            name, number = f"{stem}_{number}{ending}", number + 1
        names[name.lower()] = name
    return list(names.values())


def is_video(path: str) -> bool:
    """Return whether the file name is a video's."""
    return path.lower().endswith(VIDEOS)


def read_image(path: str) -> np.ndarray:
    """Return the image (h, w, 3) uint8 RGB, rotated as its EXIF data say.

    Raises:
        InputError: the image cannot be read; the message is the reason.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
        rgb = data.startswith(RGB_STARTS)
        order = cv2.IMREAD_COLOR_RGB if rgb else cv2.IMREAD_COLOR_BGR
        image = cv2.imdecode(np.frombuffer(data, np.uint8), order) if data else None
    except OSError as error:
        raise InputError(f"cannot be opened ({error.strerror})") from error
    except cv2.error as error:
        raise InputError(f"cannot be decoded ({error.err})") from error
    if image is None:
        raise InputError("cannot be decoded (empty, damaged, or not an image format that OpenCV knows)")
    return image if rgb else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def entry_of(path: str, drawing: str, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray,
             names: list[str]) -> dict:
    """Return the entry of detections.json for one image (h, w, 3): bbox is x, y, width, height in pixels of the image."""
    xywh = boxes.astype(np.float64)
    xywh[:, 2:] -= xywh[:, :2]
    return {"file": path, "drawing": drawing, "height": image.shape[0], "width": image.shape[1],
            "detections": [{"bbox": box, "category": names[label], "label": label, "score": score}
                           for box, score, label in zip(xywh.tolist(), scores.tolist(), labels.tolist())]}


def listing_of(entries: list[dict]) -> str:
    """Return the content of detections.json, one line per image."""
    return "[" + ",\n ".join(json.dumps(entry, allow_nan=False) for entry in entries) + "]\n"


def counts_of(entries: list[dict]) -> str:
    """Return the number of all detections and of the detections of each class, as text."""
    counts = Counter(row["category"] for entry in entries for row in entry["detections"])
    return ", ".join([f"{sum(counts.values())} detections", *(f"{count} {name}" for name, count in counts.most_common())])
