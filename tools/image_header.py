"""The sizes of image files, and how these lie, without decoding them."""
from __future__ import annotations

import os
import warnings
from typing import NamedTuple

from PIL import Image

from src.errors import UserError

ORIENTATION = 274  # tag in EXIF data
ON_ITS_SIDE = (5, 6, 7, 8)  # values of it with which height and width change places
# OpenCV follows EXIF data where the program lets it. It never does in WebP files, and always, as Pillow does, in TIFF files.
ROTATED_BY_EXIF = ("JPEG", "MPO", "PNG")


class Header(NamedTuple):
    """What the start of an image file says."""
    size: tuple[int, int]  # (width, height) as stored
    orientation: int       # by EXIF data, as far as this program's image reader follows it; 1: shown as stored

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) as EXIF data turn the image."""
        return self.size[::-1] if self.orientation in ON_ITS_SIDE else self.size


def read_header(path: str) -> Header:
    """Size and orientation of an image file.

    Raises:
        UserError: it cannot be read as an image.
    """
    if not os.path.isfile(path):  # opening a pipe would wait for ever
        raise UserError(f"{path} cannot be read as an image (not a regular file).")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's about damaged EXIF data, which come without the file's name
            with Image.open(path) as image:
                return Header(image.size, _orientation(image))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image ({error}).") from error


def _orientation(image):
    if image.format not in ROTATED_BY_EXIF:
        return 1
    try:
        found = image.getexif().get(ORIENTATION)
    except Exception:  # Pillow has many for damaged EXIF data, with which OpenCV leaves an image as it is stored
        found = 1
    return found if found in range(1, 9) else 1
