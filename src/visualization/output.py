"""Writes images and matplotlib figures to files. A file gets its name only when it is complete."""
import cv2
import numpy as np

from src.run.files import atomic_write

JPEG_QUALITY = 92
DPI = 120


def write_image(path: str, image: np.ndarray) -> None:
    """Write (h, w, 3) uint8 RGB to a .jpg or .png file.

    Raises:
        OSError: it could not be written; an earlier file of that name is unchanged.
    """
    _, data = cv2.imencode(path[path.rindex("."):], cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                           [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    with atomic_write(path) as temporary, open(temporary, "wb") as file:  # cv2.imwrite does not report why it failed
        file.write(data.tobytes())


def new_figure(width: float, height: float):
    """Return an empty matplotlib.figure.Figure of the given size in inches, without a display and without global state."""
    from matplotlib.figure import Figure  # imported here because it takes 0.5 s, which most runs need not spend
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save_figure(figure, path: str) -> None:
    """Write the figure as PNG.

    Raises:
        OSError: it could not be written; an earlier file of that name is unchanged.
    """
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")
