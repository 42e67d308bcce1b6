"""Decodes image files to 8-bit RGB and compares their sizes with the annotation file."""
from __future__ import annotations

import math
import os
import stat
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

from src.run.environment import MAX_IMAGE_PIXELS

# Size of the largest uncompressed image with four 16-bit channels.
MAX_FILE_BYTES = 8 * MAX_IMAGE_PIXELS
JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG markers, followed by the size


class UnreadableImageError(Exception):
    """Raised for an image file that is missing, damaged or of another size than annotated. The message is only the reason."""


def read_image(path: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decode an image file.

    Greyscale, palette, CMYK, 16-bit and transparent images are converted to 8-bit RGB; transparency is ignored. Images with
    more than MAX_IMAGE_PIXELS pixels are rejected. Without `size`, the EXIF orientation is applied. With `size`, it is applied
    only if the stored image does not have that size and the rotated image has.

    Args:
        path: path of the file.
        size: (height, width) in the annotation file.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        UnreadableImageError: the image cannot be read; the message is the reason.
    """
    data, _ = _read_checked(path, size)
    image = _decode(data, cv2.IMREAD_IGNORE_ORIENTATION if size else 0)
    turned = image if size in (None, image.shape[:2]) else _decode(data)
    if size not in (None, turned.shape[:2]):
        raise _wrong_size(image.shape, size)
    return turned


def check_image(path: str, size: tuple[int, int]) -> None:
    """Raise an UnreadableImageError as `read_image` does, but decode only files that are neither JPEG nor PNG."""
    data, stored = _read_checked(path, size)
    if stored is None:
        _decode(data)


def read_header(path: str) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Return (width, height) of an image as stored and with its EXIF orientation, and the orientation, 1 to 8. The orientation is
    1 if `read_image` does not apply it."""
    with Image.open(path) as image:  # OpenCV does not rotate WebP; Pillow's size of a TIFF file is upright
        value = image.getexif().get(274, 1) if image.format in ("JPEG", "MPO", "PNG") else 1
        orientation = value if value in range(1, 9) else 1
        return image.size, image.size[::-1] if orientation > 4 else image.size, orientation


def _read_checked(path, size):
    """Return the content of an image file, and the (height, width) in the header of a JPEG or PNG file, None for other formats.

    Sizes are checked before decoding, because a small file can expand to gigabytes. Truncated files are rejected, because some
    decoders silently fill the missing part with grey.
    """
    data = _read_file(path)
    stored = _png_size(data) if data.startswith(PNG_START) else _jpeg_size(data) if data.startswith(JPEG_START) else None
    if stored is not None and math.prod(stored) > MAX_IMAGE_PIXELS:
        raise UnreadableImageError(f"has {stored[0]}x{stored[1]} (height x width) pixels, more than the {MAX_IMAGE_PIXELS} that "
                                   "are decoded")
    if stored and size and stored not in (size, size[::-1]):
        raise _wrong_size(stored, size)
    return data, stored


def _wrong_size(stored, size):
    return UnreadableImageError(f"is {stored[0]}x{stored[1]} (height x width), but the annotation file says {size[0]}x{size[1]}")


def _read_file(path):
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe or reading a device could block forever
            raise UnreadableImageError("cannot be opened (not a regular file)")
        if status.st_size > MAX_FILE_BYTES:
            raise UnreadableImageError(f"has {status.st_size} bytes, more than the {MAX_FILE_BYTES} that are read")
        with open(path, "rb") as file:
            data = file.read(status.st_size)
    except (OSError, ValueError) as error:
        raise UnreadableImageError(f"cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    if not data:
        raise UnreadableImageError("the file is empty")
    return data


def _decode(data, flags=0):
    # Decoders of some other formats, such as PAM, return BGR regardless of the flags.
    rgb = data.startswith((JPEG_START, PNG_START))
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8),
                             flags | (cv2.IMREAD_COLOR_RGB if rgb else cv2.IMREAD_COLOR_BGR))
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in error.err:
            raise UnreadableImageError("has a side too long, or more pixels than the "
                                       f"{os.environ['OPENCV_IO_MAX_IMAGE_PIXELS']} that are decoded") from error
        raise UnreadableImageError(f"cannot be decoded ({error.err})") from error
    if image is None:
        raise UnreadableImageError("cannot be decoded (damaged, or not an image format that OpenCV knows)")
    return image if rgb else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _png_size(data):
    """Check the chunks of a PNG file up to IEND, and the checksums of critical chunks (first letter in upper case), of which
    libpng would only warn on standard error without naming the file."""
    position, size = len(PNG_START), None
    while position + 12 <= len(data):  # bytes of a chunk's length, name and checksum
        length, kind = struct.unpack(">I4s", data[position:position + 8])
        end = position + 8 + length
        if end + 4 > len(data):
            break
        if kind[:1].isupper() and zlib.crc32(memoryview(data)[position + 4:end]) != struct.unpack(">I", data[end:end + 4])[0]:
            raise UnreadableImageError("the PNG file is damaged (a checksum does not hold)")
        if kind == b"IHDR" and length == 13:
            size = struct.unpack(">II", data[position + 8:position + 16])[::-1]
        if kind == b"IEND":
            return size
        position = end + 4
    raise UnreadableImageError("the file is truncated")


def _jpeg_size(data):
    """Check the segments of a JPEG file up to the first scan. An end marker after that point ends the image, because in image
    data 0xFF is always followed by 0. An end marker before it belongs to a thumbnail."""
    position, size = 2, None
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            raise UnreadableImageError("the JPEG file is damaged (a segment does not start where it should)")
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte before a marker
            position += 1
            continue
        if marker in START_OF_FRAME and position + 9 <= len(data):
            size = struct.unpack(">HH", data[position + 5:position + 9])
        if marker == 0xDA:  # start of scan
            if data.rfind(b"\xff\xd9", position) < 0:  # the end marker; search from the back: most files end with it
                break
            return size
        position += 2 + struct.unpack(">H", data[position + 2:position + 4])[0]
    raise UnreadableImageError("the file is truncated")
