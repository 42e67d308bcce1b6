"""Writes HTML pages as single files that work offline: templates, styles, scripts and data are embedded."""
from __future__ import annotations

import base64
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from src.evaluation.coco import KEYS
from src.run.files import atomic_write
from src.visualization.charts import Curves

TEMPLATES = os.path.join(os.path.dirname(__file__), "templates")


def write_page(path: str, template: str, title: str, contents: dict, refresh: int = 0, comparison: bool = False) -> None:
    """Render a template with data, and write it as one HTML file.

    Args:
        path: path of the file. An existing file is replaced only when the new one is complete.
        template: file name of the template.
        title: title of the page.
        contents: JSON-compatible data for the scripts of the page.
        refresh: seconds until a browser reloads the page, 0 for never.
        comparison: whether evaluation.html.j2 shows two evaluations.

    Raises:
        OSError: the file cannot be written.
    """
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    # ASCII JSON without "<", so that an HTML parser finds no end of script and no comment in it.
    data = Markup(json.dumps(contents, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))
    text = environment.get_template(template).render(
        title=title, data=data, refresh=refresh, comparison=comparison,
        source=lambda name: Markup(Path(TEMPLATES, name).read_text(encoding="utf-8")))  # of a style sheet or script
    # File names may contain surrogates, with which Python represents undecodable bytes.
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", errors="replace") as file:
        file.write(text)


def packed(values: np.ndarray, dtype: type) -> dict:
    """Return an array for a page's data: the name of JavaScript's typed array, and its little-endian bytes in base64."""
    data = np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<")).tobytes()
    return {"type": f"{np.dtype(dtype).name.capitalize()}Array", "base64": base64.b64encode(data).decode("ascii")}


def run_contents(curves: Curves, evaluations: list[dict]) -> dict:
    """Return a run's curves and the lines of its evaluations.jsonl for a page's data; unknown values are None."""
    points = {key: values for key, values in curves.points().items() if np.isfinite(values).any()}
    return {"curves": {key: list(map(known, values.tolist())) for key, values in points.items()},
            "evaluations": {"epoch": [line["epoch"] for line in evaluations],
                            **{key: [known(line.get(key)) for line in evaluations] for key in KEYS[:3]}}}


def known(value: Any) -> float | None:
    """Return the number with six significant digits, or None if it is not a finite number or is negative, as COCO's -1."""
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        return None
    return float(f"{value:.6g}")
