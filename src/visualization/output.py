"""Images and matplotlib's figures written to files, which have their names only when they are complete."""
import cv2
import numpy as np

from src.files import whole_file

JPEG_QUALITY = 92
DPI = 120


def write_image(path: str, image: np.ndarray) -> None:
    """Write (h, w, 3) uint8 RGB to a .jpg or .png file.

    Raises:
        OSError: it could not be written; an earlier file of that name is unchanged.
    """
    _, data = cv2.imencode(path[path.rindex("."):], cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                           [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    with whole_file(path) as temporary, open(temporary, "wb") as file:  # cv2.imwrite does not say why it failed
        file.write(data.tobytes())


def new_figure(width: float, height: float):
    """An empty matplotlib.figure.Figure of so many inches, which needs no display and is in no global state."""
    from matplotlib.figure import Figure  # here: it takes half a second, which most starts of a program need not spend
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save_figure(figure, path: str) -> None:
    """Write the figure as PNG.

    Raises:
        OSError: it could not be written; an earlier file of that name is unchanged.
    """
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")
