"""Decoding of image files to RGB. For files that are refused, see also tests/integration/bad_input/test_bad_images.py."""
import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from src.dataset.image import UnreadableImageError, read_image


@pytest.fixture(scope="module")
def pixels():
    """A smooth image (48, 64, 3) that JPEG keeps nearly as it is, and without any symmetry."""
    y, x = np.mgrid[:48, :64].astype(np.float64)
    return np.stack([x * 3.9, y * 5.2, 255 - x - 2 * y], axis=2).astype(np.uint8)


def save(path, image, **options):
    image.save(path, **options)
    return str(path)


def mean_difference(found, wanted):
    return np.abs(found.astype(int) - wanted.astype(int)).mean()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "transparent"])
def test_png_modes_become_rgb(tmp_path, pixels, mode):
    """Pixels are exact, and transparency is ignored."""
    if mode == "transparent":
        image, wanted = Image.fromarray(np.dstack([pixels, np.zeros((48, 64), dtype=np.uint8)])), pixels
    else:
        image = Image.fromarray(pixels).convert(mode)
        wanted = np.asarray(Image.fromarray(pixels) if mode == "RGBA" else image.convert("RGB"))
    found = read_image(save(tmp_path / "a.png", image), (48, 64))
    assert found.dtype == np.uint8 and found.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("grey", [True, False])
def test_16_bit_png_keeps_the_high_byte(tmp_path, pixels, grey):
    deep = pixels.astype(np.uint16) * 256 + 37
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, deep[..., 0] if grey else deep[..., ::-1])
    wanted = np.repeat(pixels[..., :1], 3, axis=2) if grey else pixels
    np.testing.assert_array_equal(read_image(path, (48, 64)), wanted)


@pytest.mark.parametrize(("mode", "progressive"), [("RGB", True), ("RGB", False), ("L", False), ("CMYK", True)])
def test_jpeg_modes_become_rgb(tmp_path, pixels, mode, progressive):
    """Bytes after the end of the image are ignored."""
    image = Image.fromarray(pixels).convert(mode)
    path = save(tmp_path / "a.jpg", image, quality=95, progressive=progressive)
    with open(path, "ab") as file:
        file.write(b"\0" * 5000)
    assert mean_difference(read_image(path, (48, 64)), np.asarray(image.convert("RGB"))) < 3


@pytest.mark.parametrize("suffix", ["bmp", "tiff", "webp", "ppm", "pam"])
def test_other_formats_become_rgb(tmp_path, pixels, suffix):
    path = str(tmp_path / f"a.{suffix}")
    assert cv2.imwrite(path, pixels[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])  # above 100 means lossless
    np.testing.assert_array_equal(read_image(path, (48, 64)), pixels)


@pytest.mark.parametrize(("orientation", "quarters"), [(1, None), (3, None), (6, -1), (8, 1)])
def test_exif_rotation_is_applied_when_only_the_rotated_image_has_the_annotated_size(tmp_path, pixels, orientation, quarters):
    """If neither has it, the image is refused."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.jpg", Image.fromarray(pixels), quality=95, exif=exif)
    assert mean_difference(read_image(path, (48, 64)), pixels) < 3
    if quarters:
        assert mean_difference(read_image(path, (64, 48)), np.rot90(pixels, quarters)) < 3
    else:
        for size in ("64x48", "48x65"):
            with pytest.raises(UnreadableImageError, match=f"48x64 .*{size}"):
                read_image(path, tuple(map(int, size.split("x"))))


def encoded(pixels, suffix):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, suffix)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", ["jpeg", "png"])
@pytest.mark.parametrize("part", [0.005, 0.7, 0.998])
def test_truncated_files_are_refused_without_a_word_on_stderr(tmp_path, pixels, suffix, part, capfd):
    data = encoded(pixels, suffix)
    path = tmp_path / "a"
    path.write_bytes(data[:max(1, int(len(data) * part))])
    with pytest.raises(UnreadableImageError):
        read_image(str(path), (48, 64))
    assert capfd.readouterr().err == ""


def test_truncation_is_found_behind_a_whole_thumbnail(tmp_path, pixels):
    data = encoded(pixels, "jpeg")
    thumbnail = b"Exif\0\0" + encoded(pixels[:16, :16], "jpeg")
    with_thumbnail = data[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + data[2:]
    path = tmp_path / "a.jpg"
    path.write_bytes(with_thumbnail)
    assert mean_difference(read_image(str(path), (48, 64)), pixels) < 10
    path.write_bytes(with_thumbnail[:-200])
    with pytest.raises(UnreadableImageError, match="truncated"):
        read_image(str(path), (48, 64))
