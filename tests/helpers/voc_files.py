"""VOC's XML files for tests."""
from xml.sax.saxutils import escape


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
