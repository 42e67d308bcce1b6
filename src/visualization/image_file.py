"""Images written to files."""
import cv2

from src.files import whole_file

JPEG_QUALITY = 92


def write_image(path, image):
    """Write (h, w, 3) uint8 RGB to a .jpg or .png file, which has its name only when it is complete.

    Raises:
        OSError: it could not be written.
    """
    _, data = cv2.imencode(path[path.rindex("."):], cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                           [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    with whole_file(path) as temporary, open(temporary, "wb") as file:  # not cv2.imwrite: it swallows the reason of a failure
        file.write(data)
