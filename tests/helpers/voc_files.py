"""VOC's XML files for tests, and the tools for annotation files run in this process."""
import sys
from xml.sax.saxutils import escape

from src.launch import run


def voc_xml(objects, filename="a.jpg", size=(64, 48)):
    """The text of an annotation file. `objects` are (name, (xmin, ymin, xmax, ymax)) or (name, corners, text of further
    elements); `filename` and `size` (width, height) None leave these out."""
    parts = ["<annotation>"]
    if filename is not None:
        parts.append(f"<filename>{escape(filename)}</filename>")
    if size is not None:
        parts.append("<size><width>{}</width><height>{}</height><depth>3</depth></size>".format(*size))
    for name, corners, *more in objects:
        box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners))
        parts.append(f"<object><name>{escape(name)}</name>{''.join(more)}<bndbox>{box}</bndbox></object>")
    return "\n".join([*parts, "</annotation>"])


def run_tool(tool, words, monkeypatch, capfd):
    """Run the main of a tool, a module, with the words of a command line; returns status, standard output and error."""
    monkeypatch.setattr(sys, "argv", [tool.__name__, *map(str, words)])
    return run(tool.main, tool.parse_args), *capfd.readouterr()
