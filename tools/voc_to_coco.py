"""Make a COCO annotation file of Pascal VOC's XML files: python tools/voc_to_coco.py --annotations FOLDER --output FILE (--help
lists all).

VOC counts pixels from 1, and xmax is the last pixel of a box; COCO has [x, y, w, h] from the image's corner:
x = xmin - 1, y = ymin - 1, w = xmax - xmin + 1, h = ymax - ymin + 1. Labelling tools mostly write edges, counted from 0, which
--zero_based converts: x = xmin, y = ymin, w = xmax - xmin, h = ymax - ymin.

COCO has no `difficult`. Such objects get `iscrowd` 1, which is treated as VOC treats them: training leaves them out, and an
evaluation neither requires them nor counts a detection on them as wrong. `truncated` becomes a key of that name.
"""
from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.errors import UserError, show
from src.files import prepare_output
from src.launch import launch
from tools.coco_output import write_annotations
from tools.conversion import read_list, some_of, split_names
from tools.voc.annotation import CORNERS, VocFile, read_voc
from tools.voc.images import ImageFolder

logger = logging.getLogger("faster_rcnn")


def main(args, *_):
    prepare_output(args.output)
    paths = annotation_paths(args.annotations)
    chosen = set(paths if args.split is None else split_paths(args.split, paths, args.annotations))
    # The classes are those of all files: a part of the data may lack one, and training and validation must have the same.
    files = [read_voc(path) for path in paths.values()]
    names = class_names(args.names, files)
    files = [voc for stem, voc in zip(paths, files) if stem in chosen]
    folder = ImageFolder(args.images or "")
    images = image_entries(files, folder)
    annotations = annotation_entries(files, images, names, args.zero_based)
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    write_annotations(args.output, images, annotations, categories)
    missing = [image["file_name"] for image in images if image["file_name"] not in folder.names]
    if args.images and missing:
        logger.warning("%d of %d images are not in %s: %s", len(missing), len(images), args.images, some_of(missing))
    logger.info("%s: %d images, %d boxes, %d of them difficult (iscrowd), %d classes: %s", args.output, len(images),
                len(annotations), sum(entry["iscrowd"] for entry in annotations), len(names), ", ".join(names))


def annotation_paths(folder: str) -> dict[str, str]:
    """The XML files in a folder, name without .xml -> path, sorted by name.

    Raises:
        UserError: there is no such folder, or no XML file in it.
    """
    if not os.path.isdir(folder):
        raise UserError(f"there is no folder {folder!r}; give --annotations the folder with the XML files.")
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(".xml") and not name.startswith("."))
    if not names:
        raise UserError(f"the folder {folder} has no .xml file; give --annotations the folder with the XML files.")
    return {name[:-len(".xml")]: os.path.join(folder, name) for name in names}


def split_paths(split: str, paths: dict[str, str], folder: str) -> list[str]:
    """The keys of `paths`, those of all annotations in `folder`, that the file `split` lists, one a line; a line may end with an
    extension, or with VOC's flag of a class.

    Raises:
        UserError: the list cannot be read, is empty, or names an annotation that is not there.
    """
    chosen = []
    for line in read_list(split, "annotation"):
        name, _, flag = line.rpartition(" ")
        forms = [line, os.path.splitext(line)[0], *[name.strip()] * (flag in ("-1", "0", "1"))]
        found = [form for form in forms if form in paths]
        if not found:
            raise UserError(f"{split} lists {show(line)}, but {folder} has no {forms[-1]}.xml.")
        chosen.append(found[0])
    return chosen


def class_names(given: str | None, files: list[VocFile]) -> list[str]:
    """The classes in the order of their ids: those of --names, or those of all files in alphabetical order.

    Raises:
        UserError: there are none, --names is not a list of names, or an object has a class that it lacks.
    """
    if given is None:
        found = sorted({item.name for voc in files for item in voc.objects})
        if not found:
            raise UserError(f"none of the {len(files)} annotation files has an object; name the classes with --names.")
        return found
    names = split_names(given)
    for voc in files:
        for item in voc.objects:
            if item.name not in names:
                raise UserError(f"{voc.path} has an object of the class {item.name!r}, which --names does not list; add it or "
                                "correct the file.")
    return names


def image_entries(files: list[VocFile], folder: ImageFolder) -> list[dict]:
    """COCO's images, with ids in the order of `files`.

    Raises:
        UserError: an image or its size cannot be found, or two files are for one image.
    """
    images, owners = [], {}
    for number, voc in enumerate(files, 1):
        name = folder.find(voc)
        if name in owners:
            raise UserError(f"{owners[name]} and {voc.path} are both for the image {name}; remove one, or correct its "
                            "<filename>.")
        owners[name] = voc.path
        width, height = folder.size_of(voc, name)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
    return images


def annotation_entries(files: list[VocFile], images: list[dict], names: list[str], zero_based: bool) -> list[dict]:
    """COCO's annotations, with ids in the order of the files and of their objects.

    Raises:
        UserError: a box is not possible.
    """
    ids = {name: number for number, name in enumerate(names, 1)}
    entries = []
    for voc, image in zip(files, images):
        for number, item in enumerate(voc.objects, 1):
            bbox = coco_box(item.corners, zero_based, f"{voc.path}: object {number} ({item.name})")
            entry = {"id": len(entries) + 1, "image_id": image["id"], "category_id": ids[item.name], "bbox": bbox,
                     "area": bbox[2] * bbox[3], "iscrowd": item.difficult, "segmentation": []}
            if item.truncated is not None:
                entry["truncated"] = item.truncated
            entries.append(entry)
    return entries


def coco_box(corners: tuple, zero_based: bool, where: str) -> list[float]:
    """A box as COCO's [x, y, w, h] in pixels, see the top of this file; `where` are file and object, for messages.

    Raises:
        UserError: it begins before the first pixel, or ends before it begins.
    """
    xmin, ymin, xmax, ymax = corners
    first = 0 if zero_based else 1
    box = [xmin - first, ymin - first, xmax - xmin + first, ymax - ymin + first]
    shown = ", ".join(f"{name} {value:g}" for name, value in zip(CORNERS, corners))
    if min(box[:2]) < 0:
        hint = "correct it" if zero_based else "if these boxes count from 0, as those of many tools do, give --zero_based"
        raise UserError(f"{where} has {shown}, but the first pixel is {first}: {hint}.")
    if min(box[2:]) < 0:
        raise UserError(f"{where} has {shown}: it ends before it begins; correct it.")
    return box


def parse_args():
    parser = argparse.ArgumentParser(
        description="Make a COCO annotation file of Pascal VOC's XML files.", allow_abbrev=False,
        epilog="Objects marked difficult get iscrowd 1: they do not train, and an evaluation ignores them.")
    parser.add_argument("--annotations", required=True, metavar="FOLDER", help="folder with the XML files, VOC's Annotations")
    parser.add_argument("--output", required=True, metavar="FILE", help="annotation file to write, .json")
    parser.add_argument("--images", metavar="FOLDER",
                        help="folder with the images, VOC's JPEGImages: their sizes are compared with the XML files', or taken "
                             "where these have none (default: they are not looked at)")
    parser.add_argument("--split", metavar="FILE",
                        help="list of the annotations to take, one name a line, such as VOC's ImageSets/Main/train.txt "
                             "(default: all of the folder)")
    parser.add_argument("--names", metavar="A,B,...",
                        help="classes in the order of their ids (default: those of all XML files of the folder, by alphabet)")
    parser.add_argument("--zero_based", action="store_true",
                        help="boxes are edges counted from 0, as LabelImg, CVAT and others write them (w = xmax - xmin), not "
                             "VOC's pixels counted from 1 (w = xmax - xmin + 1)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
