"""Convert labels, which the package labelformat reads, to COCO annotation files (--help lists the flags)."""
import argparse
import json
import logging.handlers
import re
import sys
from os.path import isdir, isfile, join, realpath, relpath, splitext
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from src.dataset.annotations import load_coco
from src.dataset.image import read_header
from src.dataset.splits import random_part
from src.errors import UserError
from src.run.files import atomic_write, prepare_output
from src.run.launch import launch

logger = logging.getLogger("faster_rcnn")


def main(args: argparse.Namespace, *_) -> None:
    """Convert, select, split, write and check the files that the arguments name."""
    paths = [path for path in (args.output, args.val) if path]
    if args.format != "voc" and (args.zero_based or bool(args.names) != (args.format in ("kitti", "labelbox"))):
        raise UserError("--zero_based is for the format voc, and --names for kitti and labelbox, which need it, and for voc.")
    if len({*map(realpath, paths)}) < len(paths) or not 0 < args.val_fraction < 1 or args.seed < 0 or not isdir(args.images):
        raise UserError("--images must be a folder, --val not --output, --val_fraction between 0 and 1, and --seed at least 0.")
    for path in paths:
        prepare_output(path)
    coco = load_coco(args.labels, args.images).coco_json if args.format == "coco" else convert(args)
    ids = listed(args.list, coco["images"]) if args.list else {image["id"] for image in coco["images"]}
    if len(ids) < len(paths) or not coco["annotations"]:
        raise UserError(f"{args.labels} gives {len(ids)} images and {len(coco['annotations'])} boxes, too few: check all flags.")
    chosen = {image["id"]: join(args.images, image["file_name"]) for image in coco["images"] if image["id"] in ids}
    if missing := [path for path in chosen.values() if not isfile(path)]:
        logger.warning("%d of %d images do not exist: %s", len(missing), len(ids), ", ".join(missing[:5]))
    val = random_part(chosen, args.val_fraction, args.seed) if args.val else set()
    for path, part in zip(paths, (ids - val, val)):
        boxes = [box for box in coco["annotations"] if box["image_id"] in part]
        content = {**coco, "images": [image for image in coco["images"] if image["id"] in part], "annotations": boxes}
        with atomic_write(path) as temporary:
            Path(temporary).write_text(json.dumps(content), encoding="utf-8")
        load_coco(path, args.images)
        empty, crowd = len(part - {box["image_id"] for box in boxes}), sum(box["iscrowd"] for box in boxes)
        logger.info("%s: %d images (%d without boxes), %d boxes (%d iscrowd), classes %s", path, len(part), empty, len(boxes),
                    crowd, ", ".join(category["name"] for category in coco["categories"]))


def convert(args: argparse.Namespace) -> dict:
    """Return labels as a COCO dict, for images as the data loader reads them."""
    try:
        names, labelled = read_labels(args)
    except Exception as error:  # labelformat raises many types
        raise UserError(f"{args.labels}: no {args.format} labels ({error!r}); correct them, or install labelformat.") from error
    images, annotations = {}, []
    for name, given, objects in sorted(labelled, key=lambda image: image[0]):
        stored, upright, orientation = read_header(path) if isfile(path := join(args.images, name)) else (given, given, 1)
        size = upright if args.format == "yolo" else stored if given == (0, 0) else given
        if name in images or size not in (stored, upright):
            raise UserError(f"{args.labels} has {name} twice or with the size {size}, and the image has {stored}: correct it.")
        images[name] = {"id": len(images) + 1, "file_name": name, "width": size[0], "height": size[1]}
        for label, points, keys in objects:
            points[0] -= args.format == "voc" and not args.zero_based  # VOC counts from 1 and includes the last pixel
            if args.format == "yolo" and len(points) == 2:
                points = points[0] + points[1] * [[-0.5], [0.5]]  # from centre and size
            if len(points) == 2 and (points[0] > points[1]).any() or args.format == "voc" and points.min() < 0:
                raise UserError(f"{name} has the box {points.tolist()}: correct it, or give --zero_based if VOC counts from 0.")
            if args.format == "yolo":  # fractions of the upright image
                if orientation > 1 and upright == stored:  # the data loader rotates only images whose size says so
                    points = points[:, ::-1] if orientation > 4 else points
                    points = np.where([orientation in (2, 3, 7, 8), orientation in (3, 4, 6, 7)], 1 - points, points)
                points = points * size
            (x, y), extent, is_polygon = points.T, np.ptp(points, axis=0), len(points) > 2
            area = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2 if is_polygon else extent.prod()
            annotations.append({"id": len(annotations) + 1, "image_id": len(images), "category_id": label + 1, "iscrowd": 0,
                                "bbox": [*points.min(axis=0).tolist(), *extent.tolist()], "area": float(area),
                                "segmentation": [points.ravel().tolist()] if is_polygon else [], **keys})
    return {"images": list(images.values()), "annotations": annotations,
            "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)]}


def read_labels(args: argparse.Namespace) -> tuple[list[str], list[tuple]]:
    """Return class names and (image name, (width, height), [(label, points (n, 2), COCO keys)]), in pixels or YOLO's units."""
    from labelformat import formats
    labels, folder, found, objects = Path(args.labels), relpath(args.images, args.labels), {}, {}
    for root in map(ElementTree.parse, labels.glob("*.xml") if args.format == "voc" else ()):
        found.setdefault(root.findtext("filename"), []).extend(root.findall("object"))
    names = re.sub(", +", ",", args.names or ",".join(sorted({item.findtext("name", "") for item in sum(found.values(), [])})))
    kind, *options = {"cvat": ["CVAT"], "kitti": ["Kitti", names, folder], "labelbox": ["Labelbox", names],
                      "lightly": ["Lightly", folder], "voc": ["PascalVOC", names], "yolo": ["YOLOv8", args.split]}[args.format]
    reader = getattr(formats, f"{kind}ObjectDetectionInput")(labels, *options)
    categories, images = list(reader.get_categories()), list(reader.get_images())
    logging.getLogger("labelformat").handlers = [log := logging.handlers.BufferingHandler(sys.maxsize)]
    for image, items in () if args.format == "yolo" else ((label.image, label.objects) for label in reader.get_labels()):
        keys = [{key: int(item.findtext(tag) == "1") for key, tag in (("iscrowd", "difficult"), ("truncated", "truncated"))}
                for item in found.get(image.filename, [])] or [{}] * len(items)
        corners = [np.array([[item.box.xmin, item.box.ymin], [item.box.xmax, item.box.ymax]]) for item in items]
        objects[image.filename] = list(zip([categories.index(item.category) for item in items], corners, keys))
    if log.buffer:
        logger.warning("%d objects are skipped, the first: %s", len(log.buffer), log.buffer[0].getMessage())
    if args.format == "yolo":  # labelformat reads boxes or polygons, but a file may have both
        labels = Path(re.sub("images(?!.*images)", "labels", args.images))
        for path, name in (((labels / image.filename).with_suffix(".txt"), image.filename) for image in images):
            rows = filter(None, map(str.split, path.read_text().splitlines() if path.exists() else ()))
            objects[name] = [(range(len(categories)).index(int(row[0])),
                              np.array(row[1:], float).reshape(max(2, len(row) // 2), 2), {}) for row in rows]
    strays = {path.stem for path in labels.rglob("*.txt")} - {"classes", *(Path(image.filename).stem for image in images)}
    if strays and args.format in ("kitti", "yolo"):
        logger.warning("%d label files have no image in %s: %s", len(strays), args.images, ", ".join(sorted(strays)[:5]))
    folders = r".*[/\\]" if args.format == "voc" else "^"  # VOC's file names may be paths on the machine of the labelling tool
    return [str(category.name) for category in categories], [
        (re.sub(folders, "", image.filename), (image.width, image.height), objects.get(image.filename, [])) for image in images]


def listed(lines: list[str], images: list[dict]) -> set[int]:
    """Return the ids of listed images. A line may add folders, another extension, and VOC's flag of a class to a name."""
    ids = {key: image["id"] for image in images for key in (splitext(image["file_name"])[0], image["file_name"])}
    chosen = set()
    for line in filter(None, map(str.strip, lines)):
        parts = re.sub(r"\s+(-1|0|1)$", "", line.replace("\\", "/")).split("/")
        ends = ["/".join(parts[start:]) for start in range(len(parts))]
        found = [ids[name] for end in ends for name in (end, splitext(end)[0]) if name in ids]
        if not found:
            raise UserError(f"--list has the line {line!r}, but no image has this name: correct the list.")
        chosen.add(found[0])
    return chosen


def parse_args() -> argparse.Namespace:
    add = (parser := argparse.ArgumentParser(description="Write labels as COCO annotations.", allow_abbrev=False)).add_argument
    add("--format", required=True, choices=("coco", "cvat", "kitti", "labelbox", "lightly", "voc", "yolo"), help="label format")
    add("--labels", required=True, metavar="PATH", help="the labels: YOLO's data.yaml, or the file or folder of another format")
    add("--images", required=True, metavar="FOLDER", help="folder of the images")
    add("--output", required=True, metavar="FILE", help="annotation file to write, .json")
    add("--list", metavar="FILE", type=argparse.FileType(encoding="utf-8-sig", errors="replace"), help="text file: images to use")
    add("--val", metavar="FILE", help="second file to write, with randomly chosen validation images (default: no split)")
    add("--val_fraction", type=float, default=0.2, help="fraction of the images that go to --val (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the random split (default: %(default)s)")
    add("--split", default="train", help="yolo: key of data.yaml with the folder of the images (default: %(default)s)")
    add("--names", metavar="A,B", help="kitti, labelbox, voc: class names in order of their ids (default for voc: alphabetical)")
    add("--zero_based", action="store_true", help="voc: box edges count from 0 (LabelImg, CVAT), not pixels from 1 (VOC)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
