import io
import struct
import zlib

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


def test_png_is_read_exactly_as_rgb(tmp_path, pixels):
    found = read_image(save(tmp_path / "a.png", Image.fromarray(pixels)), (48, 64))
    assert found.dtype == np.uint8 and found.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1"])
def test_png_modes_become_rgb(tmp_path, pixels, mode):
    image = Image.fromarray(pixels).convert(mode)
    wanted = np.asarray(Image.fromarray(pixels) if mode == "RGBA" else image.convert("RGB"))
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", image), (48, 64)), wanted)


def test_transparent_pixels_keep_their_colour(tmp_path, pixels):
    rgba = np.dstack([pixels, np.zeros((48, 64), dtype=np.uint8)])
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", Image.fromarray(rgba)), (48, 64)), pixels)


@pytest.mark.parametrize("grey", [True, False])
def test_16_bit_png_keeps_the_high_byte(tmp_path, pixels, grey):
    deep = pixels.astype(np.uint16) * 256 + 37
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, deep[..., 0] if grey else deep[..., ::-1])
    wanted = np.repeat(pixels[..., :1], 3, axis=2) if grey else pixels
    np.testing.assert_array_equal(read_image(path, (48, 64)), wanted)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [True, False])
def test_jpeg_modes_become_rgb(tmp_path, pixels, mode, progressive):
    image = Image.fromarray(pixels).convert(mode)
    path = save(tmp_path / "a.jpg", image, quality=95, progressive=progressive)
    assert mean_difference(read_image(path, (48, 64)), np.asarray(image.convert("RGB"))) < 3


@pytest.mark.parametrize("suffix", ["bmp", "tiff", "webp", "ppm", "pam"])
def test_other_formats_become_rgb(tmp_path, pixels, suffix):
    path = str(tmp_path / f"a.{suffix}")
    assert cv2.imwrite(path, pixels[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])  # above 100 means lossless
    np.testing.assert_array_equal(read_image(path, (48, 64)), pixels)


def save_with_orientation(path, pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(path, Image.fromarray(pixels), quality=95, exif=exif)


def test_exif_rotation_is_applied_when_the_annotation_means_the_rotated_image(tmp_path, pixels):
    turned_right = np.rot90(pixels, -1)
    path = save_with_orientation(tmp_path / "a.jpg", pixels, 6)
    assert mean_difference(read_image(path, (64, 48)), turned_right) < 3
    path = save_with_orientation(tmp_path / "b.jpg", pixels, 8)
    assert mean_difference(read_image(path, (64, 48)), np.rot90(pixels)) < 3


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_rotation_is_ignored_when_the_stored_size_is_the_annotated_one(tmp_path, pixels, orientation):
    path = save_with_orientation(tmp_path / "a.jpg", pixels, orientation)
    assert mean_difference(read_image(path, (48, 64)), pixels) < 3


@pytest.mark.parametrize("orientation", [1, 3])
def test_swapped_sides_without_a_rotation_that_explains_them_are_refused(tmp_path, pixels, orientation):
    path = save_with_orientation(tmp_path / "a.jpg", pixels, orientation)
    with pytest.raises(UnreadableImageError, match="48x64 .*64x48"):
        read_image(path, (64, 48))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_other_size_is_refused(tmp_path, pixels, suffix):
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(pixels))
    with pytest.raises(UnreadableImageError, match="48x64 .*48x65"):
        read_image(path, (48, 65))


def test_a_image_of_absurd_size_is_refused_by_its_header(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(UnreadableImageError, match="30000x30000"):
        read_image(str(path), (48, 64))


def encoded(pixels, suffix):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, suffix)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", ["jpeg", "png"])
@pytest.mark.parametrize("part", [0.005, 0.3, 0.7, 0.95, 0.998])
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


def test_bytes_after_the_end_do_no_harm(tmp_path, pixels):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(pixels, "jpeg") + b"\0" * 5000)
    assert read_image(str(path), (48, 64)).shape == (48, 64, 3)


@pytest.mark.parametrize(("content", "reason"), [
    (b"", "empty"), (b"<html>not found</html>", "cannot be decoded"), (b"\xff\xd8\xff", "truncated"),
    (b"\xff\xd8\xff\xe0\x00\x04ab\x00\x00\x00\x00", "damaged")])
def test_files_that_are_no_images(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=reason):
        read_image(str(path), (48, 64))


@pytest.mark.parametrize("name", ["missing.jpg", "", "nul\0byte.jpg"])
def test_files_that_cannot_be_opened(tmp_path, name):
    with pytest.raises(UnreadableImageError, match="cannot be opened"):
        read_image(f"{tmp_path}/{name}", (48, 64))
