"""Bad image files: decompression bombs, damaged files, other formats. Each is reported with a reason before it uses memory."""
import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from src.dataset.image import MAX_FILE_BYTES, UnreadableImageError, read_image
from src.run.environment import MAX_IMAGE_PIXELS
from tests.helpers.sentences import assert_says

SIDE = 12_000  # SIDE * SIDE is just above the limit
LIMIT = str(MAX_IMAGE_PIXELS)


def png(width, height, rows=0, bits=8):
    """Return a grey PNG file whose header has the given size, with `rows` black rows."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    packer = zlib.compressobj(9)
    row = bytes(1 + width * bits // 8)
    data = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def saved(kind, **options):
    """Return a black image of SIDE x SIDE in a format of PIL, with one bit per pixel if the format supports it."""
    buffer = io.BytesIO()
    Image.new("1" if kind in ("TIFF", "GIF") else "L", (SIDE, SIDE)).save(buffer, kind, **options)
    return buffer.getvalue()


def bmp():
    return (b"BM" + struct.pack("<IHHI", 154, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0)
            + bytes(100))


def webp():
    data = b"\x2f" + struct.pack("<I", (SIDE - 1) | (SIDE - 1) << 14) + bytes(20)
    return b"RIFF" + struct.pack("<I", 12 + len(data)) + b"WEBPVP8L" + struct.pack("<I", len(data)) + data


# Functions that return the file, and a part of the reason.
BOMBS = {
    "PNG that fills what it claims": (lambda: png(SIDE, SIDE, SIDE), [f"has {SIDE}x{SIDE}", LIMIT]),
    "PNG that claims alone": (lambda: png(2**31 - 1, 2**31 - 1), ["has 2147483647x2147483647", LIMIT]),
    "JPEG": (lambda: saved("JPEG"), [f"has {SIDE}x{SIDE}", LIMIT]),
    "BMP": (bmp, ["more pixels than", LIMIT]),
    "WebP": (webp, ["more pixels than", LIMIT]),
    "TIFF": (lambda: saved("TIFF", compression="group4"), ["more pixels than", LIMIT]),
    "JPEG 2000": (lambda: saved("JPEG2000"), ["more pixels than", LIMIT]),
    "GIF": (lambda: saved("GIF"), "cannot be decoded"),
    "PAM": (lambda: f"P7\nWIDTH {SIDE}\nHEIGHT {SIDE}\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n".encode() + bytes(99),
            ["more pixels than", LIMIT]),
    "PPM": (lambda: f"P6\n{SIDE} {SIDE}\n255\n".encode() + bytes(99), ["more pixels than", LIMIT]),
    "PFM": (lambda: f"PF\n{SIDE} {SIDE}\n-1.0\n".encode() + bytes(99), ["more pixels than", LIMIT]),
    "Radiance": (lambda: f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {SIDE} +X {SIDE}\n".encode() + bytes(99),
                 ["more pixels than", LIMIT]),
    "Sun raster": (lambda: struct.pack(">8I", 0x59A66A95, SIDE, SIDE, 24, 0, 1, 0, 0) + bytes(99), ["more pixels than", LIMIT]),
}

# The bytes of a file whose size is 48 x 64 in the annotations, and a part of the reason.
DAMAGED = {
    "empty": (b"", "the file is empty"),
    "text": (b"not found", "cannot be decoded"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "cannot be decoded"),
    "a script": (b"#!/bin/sh\nrm -rf /\n", "cannot be decoded"),
    "PNG with a side of 0": (png(0, 48), "is 48x0"),
    "PNG without image data": (png(64, 48), "cannot be decoded"),
    "PNG of an unknown depth": (png(64, 48, 48, bits=7), "cannot be decoded"),
    "PNG of another size": (png(64, 49, 49), "is 49x64 (height x width), but the annotation file says 48x64"),
    "PNG's first bytes": (b"\x89PNG\r\n\x1a\n", "truncated"),
    "JPEG's first bytes": (b"\xff\xd8\xff", "truncated"),
    "JPEG with a segment of length 0": (b"\xff\xd8\xff\xe0\0\0" * 50, "JPEG file is damaged"),
    "JPEG of fill bytes": (b"\xff\xd8" + b"\xff" * 100_000, "truncated"),
    "BMP's first bytes": (b"BM", "cannot be decoded"),
    "TIFF whose folder is in itself": (b"II*\0\x08\0\0\0" + b"\0\0\x08\0\0\0" * 9, "cannot be decoded"),
}


def reason(path, height, width):
    with pytest.raises(UnreadableImageError) as error:
        read_image(str(path), (height, width))
    return str(error.value)


@pytest.mark.parametrize("name", BOMBS)
def test_decompression_bombs_are_not_decoded_whatever_size_is_annotated(name, tmp_path, capfd):
    make, parts = BOMBS[name]
    path = tmp_path / "bomb"
    path.write_bytes(make())
    for height, width in ((SIDE, SIDE), (64, 48), (2**31 - 1, 2**31 - 1)):
        assert_says(reason(path, height, width), parts)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", DAMAGED)
def test_files_that_are_no_good_images(name, tmp_path, capfd):
    content, part = DAMAGED[name]
    path = tmp_path / "image"
    path.write_bytes(content)
    assert part in reason(path, 48, 64)
    # libpng may print warnings about the manipulated files.
    assert all(line.startswith("libpng ") for line in capfd.readouterr().err.splitlines())


def test_a_flipped_bit_anywhere_in_a_png_file_is_noticed_in_silence(tmp_path, capfd):
    path = tmp_path / "flipped.png"
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(buffer, "PNG")
    whole = buffer.getvalue()
    path.write_bytes(whole)
    read_image(str(path), (48, 64))
    for place in range(8, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1:])
        with pytest.raises(UnreadableImageError):
            read_image(str(path), (48, 64))
    assert capfd.readouterr().err == ""


def test_the_largest_image_is_decoded(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png(2**17, 2**10, 2**10))
    assert MAX_IMAGE_PIXELS == 2**27 and read_image(str(path), (2**10, 2**17)).shape == (2**10, 2**17, 3)


def test_the_limit_of_opencv_is_this_programs():
    """The limit holds for formats whose headers only OpenCV reads. OpenCV reads the limit when it is imported."""
    assert os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] == LIMIT
    with pytest.raises(cv2.error, match="CV_IO_MAX_IMAGE_PIXELS"):
        cv2.imdecode(np.frombuffer(bmp(), np.uint8), cv2.IMREAD_COLOR)


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would block until a process writes
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless", "."):
        assert reason(tmp_path / name, 48, 64) == "cannot be opened (not a regular file)"
    assert "File name too long" in reason(tmp_path / ("x" * 300), 48, 64)


def test_a_file_beyond_reason_is_not_read(tmp_path):
    path = tmp_path / "sparse.jpg"
    with open(path, "wb") as file:
        os.truncate(file.fileno(), MAX_FILE_BYTES + 1)
    assert f"has {MAX_FILE_BYTES + 1} bytes, more than" in reason(path, 48, 64)
