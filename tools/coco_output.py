"""COCO annotation files as the tools write them: all images, listed images, or a random split."""
from __future__ import annotations

import argparse
import json
import logging
import os
import re
from pathlib import Path

import numpy as np

from src.dataset.annotations import load_coco
from src.errors import UserError
from src.run.files import atomic_write, prepare_output

logger = logging.getLogger("faster_rcnn")


def write_annotations(path: str, images: list[dict], annotations: list[dict], categories: list[dict]) -> None:
    """Write the three lists to `path`; an earlier file stays until the new one is complete.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump({"images": images, "annotations": annotations, "categories": categories}, file)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); give another path.") from error


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that prepare_outputs and write_split need."""
    add = parser.add_argument
    add("--images", required=True, metavar="FOLDER", help="folder of the images")
    add("--list", metavar="FILE", help="text file that lists the images to use, such as VOC's train.txt (default: all)")
    add("--output", required=True, metavar="FILE", help="annotation file to write, .json")
    add("--val", metavar="FILE", help="second file to write, with randomly chosen validation images (default: no split)")
    add("--val_fraction", type=float, default=0.2, help="fraction of the images that go to --val (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of the random split (default: %(default)s)")


def prepare_outputs(args: argparse.Namespace) -> list[str]:
    """The paths of --output and, if given, --val, whose folders are created.

    Raises:
        UserError: a path cannot be written, the flags contradict each other, or there is no folder of images.
    """
    paths = [path for path in (args.output, args.val) if path]
    if len(set(map(os.path.realpath, paths))) < len(paths) or not 0 < args.val_fraction < 1 or args.seed < 0:
        raise UserError("--val must be another file than --output, --val_fraction between 0 and 1, and --seed at least 0.")
    if not os.path.isdir(args.images):
        raise UserError(f"there is no folder {args.images!r}; give --images the folder of the images.")
    for path in paths:
        prepare_output(path)
    return paths


def write_split(coco: dict, paths: list[str], args: argparse.Namespace) -> None:
    """Write the images of --list with their annotations to --output, or a random part of them to --val, and check the files.

    Args:
        coco: content of a COCO file in which every annotation has iscrowd.
        paths: of prepare_outputs.
        args: list, images, val_fraction and seed of the command line. The split does not depend on the order of the images.

    Raises:
        UserError: a file would be empty, cannot be written, or cannot be used for training.
    """
    images = coco["images"] if args.list is None else listed(args.list, coco["images"])
    if len(images) < len(paths) or not coco["annotations"]:
        raise UserError(f"{args.labels} has {len(images)} images to write and {len(coco['annotations'])} boxes, which is too few "
                        f"for {' and '.join(paths)}; check --labels, --images and --list.")
    missing = [image["file_name"] for image in images if not os.path.isfile(os.path.join(args.images, image["file_name"]))]
    if missing:
        logger.warning("%d of %d images are not in %s: %s", len(missing), len(images), args.images, ", ".join(missing[:5]))
    ids = sorted(image["id"] for image in images)
    count = min(max(1, round(args.val_fraction * len(ids))), len(ids) - 1) if len(paths) > 1 else 0
    val = set(np.random.default_rng(args.seed).permutation(ids)[:count].tolist())
    for path, part in zip(paths, (set(ids) - val, val)):
        boxes = [box for box in coco["annotations"] if box["image_id"] in part]
        write_annotations(path, [image for image in images if image["id"] in part], boxes, coco["categories"])
        load_coco(path, args.images)
        logger.info("%s: %d images (%d without boxes), %d boxes (%d iscrowd), classes %s", path, len(part),
                    len(part - {box["image_id"] for box in boxes}), len(boxes), sum(box["iscrowd"] for box in boxes),
                    ", ".join(category["name"] for category in coco["categories"]))


def listed(path: str, images: list[dict]) -> list[dict]:
    """COCO's images that a text file lists, one path per line.

    A line may have more folders than the image's file_name, another or no extension, and VOC's flag of a class.

    Raises:
        UserError: the file cannot be read, or a line names no image.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").replace("\\", "/").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list {path} cannot be read ({error}); give --list a text file.") from error
    by_name = {**{os.path.splitext(image["file_name"])[0]: image["id"] for image in images},
               **{image["file_name"]: image["id"] for image in images}}
    chosen = set()
    for line in filter(None, map(str.strip, lines)):
        parts = re.sub(r"\s+(-1|0|1)$", "", line).split("/")
        ends = ["/".join(parts[start:]) for start in range(len(parts))]
        found = [by_name[name] for end in ends for name in (end, os.path.splitext(end)[0]) if name in by_name]
        if not found:
            raise UserError(f"{path} lists {line!r}, but no image has this name: correct the list.")
        chosen.add(found[0])
    return [image for image in images if image["id"] in chosen]
