"""Convert labels of another format to COCO annotation files (--help lists the flags).

The package labelformat reads the labels. This program adds what its COCO files lack: ids from 1, areas, images sorted by name,
VOC's flags of objects, EXIF rotation, checks, and a random split into training and validation images.
"""
from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from logging.handlers import BufferingHandler
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from src.dataset.annotations import load_coco
from src.errors import UserError
from src.run.launch import launch
from tools.coco_output import add_output_flags, prepare_outputs, write_split

logger = logging.getLogger("faster_rcnn")


def main(args, *_):
    if args.format != "voc" and (args.zero_based or bool(args.names) != (args.format in ("kitti", "labelbox"))):
        raise UserError("--zero_based is for the format voc, and --names for kitti and labelbox, which need it, and for voc.")
    paths = prepare_outputs(args)
    try:
        coco = load_coco(args.labels, args.images).coco_json if args.format == "coco" else convert(args)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"--format {args.format} needs labelformat ({error}): run `pip install labelformat`.") from error
    except Exception as error:  # labelformat raises many types
        raise UserError(f"{args.labels} cannot be read as {args.format} ({type(error).__name__}: {error}); check --format, "
                        "--labels, --names and --split.") from error
    write_split(coco, paths, args)


def convert(args: argparse.Namespace) -> dict:
    """Labels as a COCO dict, for images as the data loader reads them; not of COCO files, whose iscrowd labelformat ignores."""
    categories, labelled, objects, flags = read_labels(args)
    images, annotations = {}, []
    folders = r".*[/\\]" if args.format == "voc" else "^"  # VOC's file names may be paths on the machine of the labelling tool
    for name, image in sorted(((re.sub(folders, "", image.filename), image) for image in labelled), key=lambda pair: pair[0]):
        if name in images:
            raise UserError(f"{args.labels} has the image {name} twice: remove one.")
        given = image.width, image.height
        path = os.path.join(args.images, name)
        stored, orientation = read_header(path) if os.path.isfile(path) else (given, 1)
        upright = stored[::-1] if orientation > 4 else stored
        size = upright if args.format == "yolo" else stored if given == (0, 0) else given
        if size not in (stored, upright):
            raise UserError(f"{name} is {size} in {args.labels}, but {stored} in {args.images} (width, height): correct one.")
        images[name] = {"id": len(images) + 1, "file_name": name, "width": size[0], "height": size[1]}
        for number, item in enumerate(objects.get(image.filename, [])):
            if hasattr(item, "box"):
                points = np.array([[item.box.xmin, item.box.ymin], [item.box.xmax, item.box.ymax]])
            else:
                [points] = np.array(item.segmentation.polygons)
                points = points if len(points) > 2 else points[0] + points[1] * [[-0.5], [0.5]]  # centre and size of a box
            if args.format == "voc" and not args.zero_based:
                points[0] -= 1  # VOC counts pixels from 1 and includes the last one
            if len(points) == 2 and (points[0] > points[1]).any() or args.format == "voc" and points.min() < 0:
                raise UserError(f"{name} has the box {points.tolist()}: correct it, or give --zero_based if VOC counts from 0.")
            if args.format == "yolo" and orientation > 1:  # YOLO's fractions are of the upright image
                points = points / given
                if upright == stored:  # the data loader rotates only images whose size says so
                    points = points[:, ::-1] if orientation > 4 else points
                    points = np.where([orientation in (2, 3, 7, 8), orientation in (3, 4, 6, 7)], 1 - points, points)
                points = points * size
            (x, y), extent, is_polygon = points.T, np.ptp(points, axis=0), len(points) > 2
            area = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2 if is_polygon else extent.prod()
            annotations.append({
                "id": len(annotations) + 1, "image_id": len(images), "category_id": categories.index(item.category) + 1,
                "bbox": [*points.min(axis=0).tolist(), *extent.tolist()], "area": float(area), "iscrowd": 0,
                "segmentation": [points.ravel().tolist()] if is_polygon else [],
                **(flags[image.filename][number] if flags else {})})
    return {"images": list(images.values()), "annotations": annotations,
            "categories": [{"id": number, "name": str(category.name)} for number, category in enumerate(categories, 1)]}


def read_labels(args: argparse.Namespace) -> tuple[list, list, dict, dict]:
    """labelformat's categories, images and {image name: objects}, and {image name: [COCO keys of each object]} of VOC."""
    from labelformat import formats
    labels, folder, found = Path(args.labels), os.path.relpath(args.images, args.labels), {}
    for path in labels.glob("*.xml") if args.format == "voc" else ():
        try:
            root = ElementTree.parse(path).getroot()
        except ElementTree.ParseError as error:
            raise UserError(f"{path} is not valid XML ({error}): correct or remove it.") from error
        found.setdefault(root.findtext("filename"), []).extend(root.findall("object"))
    names = re.sub(", +", ",", args.names or "") or ",".join(
        sorted({item.findtext("name", "") for items in found.values() for item in items}))
    flags = {name: [{"iscrowd": int(item.findtext("difficult") == "1"), "truncated": int(item.findtext("truncated") == "1")}
                    for item in items] for name, items in found.items()}
    kind, *options = {
        "cvat": ("CVAT", labels), "kitti": ("Kitti", labels, names, folder), "labelbox": ("Labelbox", labels, names),
        "lightly": ("Lightly", labels, folder), "voc": ("PascalVOC", labels, names), "yolo": ("YOLOv8", labels, args.split),
    }[args.format]
    reader = getattr(formats, f"{kind}ObjectDetectionInput")(*options)
    logging.getLogger("labelformat").handlers = [log := BufferingHandler(sys.maxsize)]
    objects = {label.image.filename: label.objects for label in reader.get_labels()}
    skipped = [record for record in log.buffer if "does not exist" not in record.getMessage()]
    images = list(reader.get_images())
    if any(record.levelno > logging.WARNING for record in skipped):
        raise ValueError(max(skipped, key=lambda record: record.levelno).getMessage())
    if skipped and args.format == "yolo":  # polygons
        class Polygons(formats.YOLOv8InstanceSegmentationInput):
            def get_images(self):
                return (image for image in images if image.filename in objects)
        objects = {label.image.filename: label.objects for label in Polygons(labels, args.split).get_labels()}
    elif skipped:
        logger.warning("%d objects are skipped, the first: %s", len(skipped), skipped[0].getMessage())
    if args.format in ("kitti", "yolo"):
        place = labels if args.format == "kitti" else Path(re.sub("images(?!.*images)", "labels", args.images))
        strays = {path.stem for path in place.rglob("*.txt")} - {Path(image.filename).stem for image in images} - {"classes"}
        if strays:
            logger.warning("%d label files have no image in %s: %s", len(strays), args.images, ", ".join(sorted(strays)[:5]))
    return list(reader.get_categories()), images, objects, flags


def read_header(path: str) -> tuple[tuple[int, int], int]:
    """(width, height) of a stored image, and its EXIF orientation if OpenCV applies that, or 1."""
    with Image.open(path) as image:  # OpenCV does not rotate WebP; Pillow's size of a TIFF file is upright
        orientation = image.getexif().get(274, 1) if image.format in ("JPEG", "MPO", "PNG") else 1
        return image.size, orientation if orientation in range(1, 9) else 1


def parse_args():
    parser = argparse.ArgumentParser(description="Convert labels to COCO annotation files.", allow_abbrev=False)
    add = parser.add_argument
    add("--format", required=True, choices=("coco", "cvat", "kitti", "labelbox", "lightly", "voc", "yolo"),
        help="yolo: YOLOv5 to YOLOv26; coco: also RT-DETR")
    add("--labels", required=True, metavar="PATH", help="the labels: YOLO's data.yaml, or the file or folder of another format")
    add("--split", default="train", help="yolo: key of data.yaml with the folder of the images (default: %(default)s)")
    add("--names", metavar="A,B", help="kitti, labelbox, voc: class names in order of their ids (default for voc: alphabetical)")
    add("--zero_based", action="store_true", help="voc: box edges count from 0 (LabelImg, CVAT), not pixels from 1 (VOC)")
    add_output_flags(parser)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
