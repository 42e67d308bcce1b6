"""Writes HTML pages as single files that work offline: templates, styles, scripts and data are embedded."""
from __future__ import annotations

import base64
import functools
import json
import os

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from src.run.files import atomic_write

TEMPLATES = os.path.join(os.path.dirname(__file__), "templates")


def write_page(path: str, template: str, title: str, contents: dict, refresh: int = 0) -> None:
    """Render a template with data, and write it as one HTML file.

    Args:
        path: path of the file. An existing file is replaced only when the new one is complete.
        template: file name of the template.
        title: title of the page.
        contents: JSON-compatible data for the scripts of the page.
        refresh: seconds until a browser reloads the page, 0 for never.

    Raises:
        OSError: the file cannot be written.
    """
    text = _environment().get_template(template).render(title=title, data=_in_script(contents), source=_source, refresh=refresh)
    # File names may contain surrogates, with which Python represents undecodable bytes.
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", errors="replace") as file:
        file.write(text)


def packed(values: np.ndarray, dtype: type) -> str:
    """Return the base64 encoding of an array's little-endian bytes, which a page reads as a typed array."""
    return base64.b64encode(np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<")).tobytes()).decode("ascii")


@functools.cache
def _environment():
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def _in_script(contents):
    """Return ASCII JSON without "<", so that an HTML parser finds no end of script and no comment in it."""
    return Markup(json.dumps(contents, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))


def _source(name):
    """Return the content of a style sheet or script in TEMPLATES."""
    with open(os.path.join(TEMPLATES, name), encoding="utf-8") as file:
        return Markup(file.read())
