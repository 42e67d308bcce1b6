"""Make a COCO annotation file of labels in YOLO format: python tools/yolo_to_coco.py --images FOLDER --names NAMES --output FILE
(--help lists all).

A label file has a line for each object, `class x y width height`: x and y of the box's middle, all as fractions of the image's
width and height. A line `class x1 y1 x2 y2 ...` of three points or more is a polygon: it becomes the box around it, and stays as
`segmentation`. Class k gets the category id k + 1, as COCO counts from 1.

The fractions are those of the upright image, which YOLO's programs read. Where EXIF data turn an image on its side, it gets the
height and width of the upright one, which makes the data loader turn it. Turned upside down or mirrored, it has the same size
either way, and the loader takes it as it is stored: then the boxes are moved to where the objects lie in the stored image.
"""
from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.errors import UserError
from src.files import prepare_output
from src.launch import launch
from tools.coco_output import write_annotations
from tools.image_header import Header, read_header
from tools.yolo.images import find_images, label_paths, split_images
from tools.yolo.labels import YoloObject, read_labels, read_names

logger = logging.getLogger("faster_rcnn")

MAX_OUTSIDE = 1.0  # pixels that rounding may have moved a box out of its image
# EXIF orientation -> where a point (x, y) of the upright image, in fractions of it, lies in the stored one.
STORED = {
    1: lambda x, y: (x, y), 2: lambda x, y: (1 - x, y), 3: lambda x, y: (1 - x, 1 - y), 4: lambda x, y: (x, 1 - y),
    5: lambda x, y: (y, x), 6: lambda x, y: (y, 1 - x), 7: lambda x, y: (1 - y, 1 - x), 8: lambda x, y: (1 - y, x)}


def main(args, *_):
    prepare_output(args.output)
    names = read_names(args.names)
    files = find_images(args.images)
    labels = label_paths(args.images, files, args.labels)
    if args.split is not None:
        chosen = split_images(args.split, files, args.images)
        files = [name for name in files if name in chosen]
    objects = [read_labels(labels[name], names) for name in files]
    headers = [read_header(str(Path(args.images, name))) for name in files]
    images = [{"id": number, "file_name": name, "width": header.upright_size[0], "height": header.upright_size[1]}
              for number, (name, header) in enumerate(zip(files, headers), 1)]
    annotations, outside = annotation_entries(objects, headers)
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    write_annotations(args.output, images, annotations, categories)
    report(args.output, objects, outside, names)


def annotation_entries(objects: list[list[YoloObject] | None], headers: list[Header]) -> tuple[list[dict], list[float]]:
    """COCO's annotations, with ids in the order of the images and of the lines.

    Args:
        objects: of each image.
        headers: of each image.

    Returns:
        The annotations, and by how many pixels each reached out of its image before it was clipped.

    Raises:
        UserError: one reaches out further than MAX_OUTSIDE.
    """
    entries, outside = [], []
    for image_id, (found, header) in enumerate(zip(objects, headers), 1):
        for item in found or ():
            points, beyond = points_in_pixels(item, header)
            (left, top), (right, bottom) = map(min, zip(*points)), map(max, zip(*points))
            entries.append({"id": len(entries) + 1, "image_id": image_id, "category_id": item.number + 1,
                            "bbox": [left, top, right - left, bottom - top], "iscrowd": 0,
                            "area": polygon_area(points) if item.is_polygon else (right - left) * (bottom - top),
                            "segmentation": [[value for point in points for value in point]] if item.is_polygon else []})
            outside.append(beyond)
    return entries, outside


def points_in_pixels(item: YoloObject, header: Header) -> tuple[list[tuple[float, float]], float]:
    """The points (x, y) of an object in pixels of its image as the data loader gives it, clipped to that, and by how many pixels
    they reached out.

    Raises:
        UserError: these are more than MAX_OUTSIDE.
    """
    width, height = header.upright_size
    # The loader turns an image on its side, by its size, and no other.
    move = STORED[1 if header.upright_size != header.size else header.orientation]
    points = [(x * width, y * height) for x, y in (move(*point) for point in item.points)]
    clipped = [(min(max(x, 0.0), width), min(max(y, 0.0), height)) for x, y in points]
    beyond = max(abs(value - inside) for point, kept in zip(points, clipped) for value, inside in zip(point, kept))
    if beyond > MAX_OUTSIDE:
        raise UserError(f"{item.where} reaches {beyond:.4g} pixels out of its image of {width} x {height} pixels; YOLO's numbers "
                        "are fractions of these: correct them.")
    return clipped, beyond


def polygon_area(points: list[tuple[float, float]]) -> float:
    """The area in pixels of a polygon of points (x, y), by the shoelace formula."""
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1]))) / 2


def report(output: str, objects: list[list[YoloObject] | None], outside: list[float], names: list[str]) -> None:
    """Log what was written, what was clipped and which images have no boxes."""
    clipped = [beyond for beyond in outside if beyond > 0]
    if clipped:
        logger.info("%d boxes and polygons that reached out of their images, by up to %.2g pixels, were clipped", len(clipped),
                    max(clipped))
    empty = [found for found in objects if not found]
    if empty:
        logger.info("%d images have no boxes: %d have an empty label file, %d have none", len(empty),
                    sum(found is not None for found in empty), sum(found is None for found in empty))
    logger.info("%s: %d images, %d boxes, %d of them around polygons, %d classes: %s", output, len(objects), len(outside),
                sum(item.is_polygon for found in objects for item in found or ()), len(names), ", ".join(names))


def parse_args():
    parser = argparse.ArgumentParser(
        description="Make a COCO annotation file of labels in YOLO format.", allow_abbrev=False,
        epilog="An image without a label file, or with an empty one, is an image without boxes.")
    parser.add_argument("--images", required=True, metavar="FOLDER", help="folder with the images, also in subfolders")
    parser.add_argument("--names", required=True, metavar="A,B,...",
                        help="classes in the order of their numbers, or a file of them: data.yaml, or text with one a line")
    parser.add_argument("--output", required=True, metavar="FILE", help="annotation file to write, .json")
    parser.add_argument("--labels", metavar="FOLDER",
                        help="folder with the .txt files, in the same subfolders as the images (default: the path of the images "
                             "with labels in the place of its last folder images)")
    parser.add_argument("--split", metavar="FILE",
                        help="list of the images to take, one path or name a line, such as train.txt (default: all)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
