"""Bad image files: decompression bombs, damaged files, other formats. Each is reported with a reason before it uses memory."""
import io
import os
import struct
import zlib

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
    """Return a black image of SIDE x SIDE in a format of PIL."""
    buffer = io.BytesIO()
    Image.new("1" if kind == "TIFF" else "L", (SIDE, SIDE)).save(buffer, kind, **options)
    return buffer.getvalue()


# Functions that return the file, and a part of the reason.
BOMBS = {
    "PNG with all its pixels": (lambda: png(SIDE, SIDE, SIDE), f"has {SIDE}x{SIDE}"),
    "PNG with a header and no pixels": (lambda: png(2**31 - 1, 2**31 - 1), "has 2147483647x2147483647"),
    "JPEG": (lambda: saved("JPEG"), f"has {SIDE}x{SIDE}"),
    "TIFF": (lambda: saved("TIFF", compression="group4"), "more pixels than"),
    "PPM": (lambda: f"P6\n{SIDE} {SIDE}\n255\n".encode() + bytes(99), "more pixels than"),
}

# The bytes of a file whose size is 48 x 64 in the annotations, and a part of the reason.
DAMAGED = {
    "empty": (b"", "the file is empty"),
    "PNG with a side of 0": (png(0, 48), "is 48x0"),
    "PNG without image data": (png(64, 48), "cannot be decoded"),
    "PNG of an unknown depth": (png(64, 48, 48, bits=7), "cannot be decoded"),
    "JPEG with a segment of length 0": (b"\xff\xd8\xff\xe0\0\0" * 50, "JPEG file is damaged"),
    "JPEG of fill bytes": (b"\xff\xd8" + b"\xff" * 100_000, "truncated"),
    "TIFF whose folder is in itself": (b"II*\0\x08\0\0\0" + b"\0\0\x08\0\0\0" * 9, "cannot be decoded"),
}


def reason(path, height, width):
    with pytest.raises(UnreadableImageError) as error:
        read_image(str(path), (height, width))
    return str(error.value)


@pytest.mark.parametrize("name", BOMBS)
def test_decompression_bombs_are_not_decoded_whatever_size_is_annotated(name, tmp_path, capfd):
    make, part = BOMBS[name]
    path = tmp_path / "bomb"
    path.write_bytes(make())
    for height, width in ((SIDE, SIDE), (64, 48), (2**31 - 1, 2**31 - 1)):
        assert_says(reason(path, height, width), [part, LIMIT])
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
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    read_image(str(path), (48, 64))
    for place in range(8, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1:])
        reason(path, 48, 64)
    assert capfd.readouterr().err == ""


def test_the_largest_image_is_decoded(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(png(2**17, 2**10, 2**10))
    assert MAX_IMAGE_PIXELS == 2**27 and read_image(str(path), (2**10, 2**17)).shape == (2**10, 2**17, 3)


def test_files_that_are_not_regular_or_too_large_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would block until a process writes
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless", "."):
        assert reason(tmp_path / name, 48, 64) == "cannot be opened (not a regular file)"
    for name in ("x" * 300, "missing.jpg", "nul\0byte.jpg"):
        assert "cannot be opened (" in reason(tmp_path / name, 48, 64)
    path = tmp_path / "sparse.jpg"
    with open(path, "wb") as file:
        os.truncate(file.fileno(), MAX_FILE_BYTES + 1)
    assert f"has {MAX_FILE_BYTES + 1} bytes, more than" in reason(path, 48, 64)
