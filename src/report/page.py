"""HTML pages of one file, which need no network: templates, styles, scripts and data are all inside."""
from __future__ import annotations

import base64
import functools
import json
import os

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from src.files import whole_file

TEMPLATES = os.path.join(os.path.dirname(__file__), "templates")


def write_page(path: str, template: str, title: str, contents: dict, refresh: int = 0) -> None:
    """Write a page from one of the templates.

    Args:
        path: of the file; an earlier one stays until the new one is complete.
        template: its file name.
        title: of the page.
        contents: what the scripts of the page show, values that JSON has.
        refresh: seconds after which a browser loads the page again, 0 for never.

    Raises:
        OSError: it could not be written.
    """
    text = _environment().get_template(template).render(title=title, data=_in_script(contents), source=_source, refresh=refresh)
    # Names of files may have characters by which Python stands for undecodable bytes.
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8", errors="replace") as file:
        file.write(text)


def packed(values: np.ndarray, dtype: type) -> str:
    """Numbers of a NumPy type as base64 of their little-endian bytes, which a page reads as a typed array."""
    return base64.b64encode(np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<")).tobytes()).decode("ascii")


@functools.cache
def _environment():
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def _in_script(contents):
    """JSON, in ASCII, that no parser of HTML takes for the end of its script or the start of a comment."""
    return Markup(json.dumps(contents, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))


def _source(name):
    """A style or script of the project."""
    with open(os.path.join(TEMPLATES, name), encoding="utf-8") as file:
        return Markup(file.read())
