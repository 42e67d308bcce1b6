"""Convert labels, which the package labelformat reads, to COCO annotation files (--help lists the flags)."""
from __future__ import annotations

import argparse
import json
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
from src.run.files import atomic_write, prepare_output
from src.run.launch import launch

logger = logging.getLogger("faster_rcnn")


def main(args: argparse.Namespace, *_) -> None:
    """Convert, split, write and check the files that the arguments name."""
    paths = [path for path in (args.output, args.val) if path]
    if args.format != "voc" and (args.zero_based or bool(args.names) != (args.format in ("kitti", "labelbox"))):
        raise UserError("--zero_based is for the format voc, and --names for kitti and labelbox, which need it, and for voc.")
    if (len(set(map(os.path.realpath, paths))) < len(paths) or not 0 < args.val_fraction < 1 or args.seed < 0
            or not os.path.isdir(args.images)):
        raise UserError(f"--images must be a folder, not {args.images!r}, --val another file than --output, --val_fraction "
                        "between 0 and 1, and --seed at least 0.")
    for path in paths:
        prepare_output(path)
    coco = load_coco(args.labels, args.images).coco_json if args.format == "coco" else convert(args)
    images = listed(args.list, coco["images"]) if args.list else coco["images"]
    if len(images) < len(paths) or not coco["annotations"]:
        raise UserError(f"{args.labels} has {len(images)} images to write and {len(coco['annotations'])} boxes, which is too few "
                        f"for {' and '.join(paths)}; check --labels, --images and --list.")
    missing = [image["file_name"] for image in images if not os.path.isfile(os.path.join(args.images, image["file_name"]))]
    if missing:
        logger.warning("%d of %d images are not in %s: %s", len(missing), len(images), args.images, ", ".join(missing[:5]))
    ids = sorted(image["id"] for image in images)  # the split does not depend on the order of the images
    count = min(max(1, round(args.val_fraction * len(ids))), len(ids) - 1) if args.val else 0
    val = set(np.random.default_rng(args.seed).permutation(ids)[:count].tolist())
    for path, part in zip(paths, (set(ids) - val, val)):
        boxes = [box for box in coco["annotations"] if box["image_id"] in part]
        content = {"images": [image for image in images if image["id"] in part], "annotations": boxes,
                   "categories": coco["categories"]}
        with atomic_write(path) as temporary:
            Path(temporary).write_text(json.dumps(content), encoding="utf-8")
        load_coco(path, args.images)
        logger.info("%s: %d images (%d without boxes), %d boxes (%d iscrowd), classes %s", path, len(part),
                    len(part - {box["image_id"] for box in boxes}), len(boxes), sum(box["iscrowd"] for box in boxes),
                    ", ".join(category["name"] for category in coco["categories"]))


def convert(args: argparse.Namespace) -> dict:
    """Return labels as a COCO dict, for images as the data loader reads them. labelformat ignores iscrowd of COCO files."""
    try:
        categories, labelled, objects, flags = read_labels(args)
    except ImportError as error:
        raise UserError(f"--format {args.format} needs labelformat ({error}): run `pip install labelformat`.") from error
    except Exception as error:  # labelformat raises many types
        raise UserError(f"{args.labels} cannot be read as {args.format} ({type(error).__name__}: {error}); check --format, "
                        "--labels, --names and --split.") from error
    images, annotations = {}, []
    folders = r".*[/\\]" if args.format == "voc" else "^"  # VOC's file names may be paths on the machine of the labelling tool
    for name, image in sorted(((re.sub(folders, "", image.filename), image) for image in labelled), key=lambda pair: pair[0]):
        given, path = (image.width, image.height), os.path.join(args.images, name)
        stored, orientation = read_header(path) if os.path.isfile(path) else (given, 1)
        upright = stored[::-1] if orientation > 4 else stored
        size = upright if args.format == "yolo" else stored if given == (0, 0) else given
        if name in images or size not in (stored, upright):
            raise UserError(f"{args.labels} has {name} twice or with the size {size}, and the image has {stored}: correct it.")
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
    """Return labelformat's categories, images and {image name: objects}, and VOC's {image name: [COCO keys of each object]}."""
    from labelformat import formats
    labels, folder, found = Path(args.labels), os.path.relpath(args.images, args.labels), {}
    for path in labels.glob("*.xml") if args.format == "voc" else ():
        root = ElementTree.parse(path).getroot()
        found.setdefault(root.findtext("filename"), []).extend(root.findall("object"))
    present = sorted({item.findtext("name", "") for items in found.values() for item in items})
    names = re.sub(", +", ",", args.names) if args.names else ",".join(present)
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
    if errors := [record.getMessage() for record in skipped if record.levelno > logging.WARNING]:
        raise ValueError(errors[0])
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
    """Return (width, height) of a stored image, and its EXIF orientation if OpenCV applies that, or 1."""
    with Image.open(path) as image:  # OpenCV does not rotate WebP; Pillow's size of a TIFF file is upright
        orientation = image.getexif().get(274, 1) if image.format in ("JPEG", "MPO", "PNG") else 1
        return image.size, orientation if orientation in range(1, 9) else 1


def listed(path: str, images: list[dict]) -> list[dict]:
    """Return the images that a text file lists. A line may add folders, another extension, and VOC's flag of a class."""
    ids = {key: image["id"] for image in images for key in (os.path.splitext(image["file_name"])[0], image["file_name"])}
    chosen = set()
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").replace("\\", "/").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list {path} cannot be read ({error}); give --list a text file.") from error
    for line in filter(None, map(str.strip, lines)):
        parts = re.sub(r"\s+(-1|0|1)$", "", line).split("/")
        ends = ["/".join(parts[start:]) for start in range(len(parts))]
        found = [ids[name] for end in ends for name in (end, os.path.splitext(end)[0]) if name in ids]
        if not found:
            raise UserError(f"{path} lists {line!r}, but no image has this name: correct the list.")
        chosen.add(found[0])
    return [image for image in images if image["id"] in chosen]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Convert labels to COCO annotation files.", allow_abbrev=False)
    add = parser.add_argument
    add("--format", required=True, choices=("coco", "cvat", "kitti", "labelbox", "lightly", "voc", "yolo"),
        help="yolo: YOLOv5 to YOLOv26; coco: also RT-DETR")
    add("--labels", required=True, metavar="PATH", help="the labels: YOLO's data.yaml, or the file or folder of another format")
    add("--images", required=True, metavar="FOLDER", help="folder of the images")
    add("--output", required=True, metavar="FILE", help="annotation file to write, .json")
    add("--list", metavar="FILE", help="text file that lists the images to use, such as VOC's train.txt (default: all)")
    add("--val", metavar="FILE", help="second file to write, with randomly chosen validation images (default: no split)")
    add("--val_fraction", type=float, default=0.2, help="fraction of the images that go to --val (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the random split (default: %(default)s)")
    add("--split", default="train", help="yolo: key of data.yaml with the folder of the images (default: %(default)s)")
    add("--names", metavar="A,B", help="kitti, labelbox, voc: class names in order of their ids (default for voc: alphabetical)")
    add("--zero_based", action="store_true", help="voc: box edges count from 0 (LabelImg, CVAT), not pixels from 1 (VOC)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
