"""Figures by matplotlib, without its global state and without a display."""
from src.files import whole_file

DPI = 120


def new_figure(width, height):
    """An empty matplotlib Figure of so many inches, whose parts find their places themselves."""
    from matplotlib.figure import Figure  # here: it takes half a second, and no run needs it at its start
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def save_figure(figure, path):
    """Write the figure as PNG.

    Raises:
        OSError: the file could not be written; an earlier one is as it was.
    """
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")
