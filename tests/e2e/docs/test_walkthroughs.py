"""The commands of docs/walkthroughs.md, as written, on miniature data sets in the layouts of the downloads.

Only downloads are left out, and options that reduce the work are added to the training.
"""
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from src.dataset.shapes import ensure_shapes
from tests.helpers.markdown import FENCED, NO_PROGRAM
from tests.helpers.paths import ROOT
from tests.helpers.scripts import USER_ENVIRONMENT, link_project

PAGE = ROOT / "docs" / "walkthroughs.md"
SMALL = ' epochs={} eval_interval=99 lr.warmup_step=5 backbone.pretrained=False "data.target_size=[96,128]"' \
    " bbox_head.bbox_assigner.rois_per_batch=16"
NAMES = {"circle": "Platelets", "rectangle": "RBC", "triangle": "WBC", "star": "WBC"}
VOC = "<annotation><filename>{name}</filename><size><width>128</width><height>96</height></size>{objects}</annotation>"
VOC_OBJECT = ("<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def place(samples, folder, name):
    """Copy the images to `folder`; returns [(path of the copy, boxes)]. `name` formats a number as the name of an image."""
    folder.mkdir(parents=True, exist_ok=True)
    return [(shutil.copy(path, folder / name.format(number)), boxes) for number, (path, boxes) in samples]


def voc(folder, samples, lists, name):
    for listed, part in zip(lists, samples):
        placed = place(part, folder / "JPEGImages", name)
        write(folder / f"ImageSets/Main/{listed}.txt", "".join(f"{path.stem}\n" for path, _ in placed))
        for path, boxes in placed:
            objects = "".join(VOC_OBJECT.format(label, x + 1, y + 1, x + w, y + h) for label, x, y, w, h in boxes)
            write(folder / f"Annotations/{path.stem}.xml", VOC.format(name=path.name, objects=objects))


def bccd(folder, samples):
    voc(folder / "BCCD_Dataset/BCCD", samples, ["trainval", "test"], "BloodImage_{:05}.jpg")


def voc2007(folder, samples):
    voc(folder / "VOCdevkit/VOC2007", samples, ["trainval", "test"], "{:06}.jpg")


def yolo(folder, samples):
    [yaml] = re.findall(r"```text\n(path: .*?)```", PAGE.read_text(), re.DOTALL)
    write(folder / "data/yolo/data.yaml", yaml)
    classes = re.findall(r"\w+", yaml.partition("names")[2])
    for split, part in zip(("train", "val"), samples):
        for path, boxes in place(part, folder / f"data/yolo/images/{split}", "{}.jpg"):
            write(folder / f"data/yolo/labels/{split}/{path.stem}.txt", "".join(
                f"{classes.index(label)} {(x + w / 2) / 128} {(y + h / 2) / 96} {w / 128} {h / 96}\n"
                for label, x, y, w, h in boxes))


def roboflow(folder, samples):
    names = ["cells", "Platelets", "RBC", "WBC"]
    for split, part in zip(("train", "valid", "test"), [*samples, samples[1]]):
        placed = place(part, folder / f"data/roboflow/{split}", "Image_{}_jpg.rf.0a1b2c.jpg")
        boxes = [(number, box) for number, (_, boxes) in enumerate(placed) for box in boxes]
        write(folder / f"data/roboflow/{split}/_annotations.coco.json", json.dumps({
            "categories": [{"id": number, "name": name, "supercategory": "cells" if number else "none"}
                           for number, name in enumerate(names)],
            "images": [{"id": number, "file_name": path.name, "height": 96, "width": 128, "license": 1}
                       for number, (path, _) in enumerate(placed)],
            "annotations": [{"id": number, "image_id": image, "category_id": names.index(label), "bbox": [x, y, w, h],
                             "area": w * h, "segmentation": [], "iscrowd": 0}
                            for number, (image, (label, x, y, w, h)) in enumerate(boxes)]}))


# Heading -> what writes the data, the annotation files with their numbers of images, and the number of images of infer.py.
WALKTHROUGHS = {
    "The BCCD repository": (bccd, {"BCCD_Dataset/BCCD/trainval.json": 8, "BCCD_Dataset/BCCD/test.json": 3}, 11),
    "Pascal VOC 2007": (voc2007, {"VOCdevkit/VOC2007/trainval.json": 8, "VOCdevkit/VOC2007/test.json": 3}, 11),
    "YOLO": (yolo, {"data/yolo/train.json": 8, "data/yolo/val.json": 3}, 3),
    "A Roboflow export in COCO format": (roboflow, {"data/roboflow/train/_annotations.coco.json": 8,
                                                     "data/roboflow/test/_annotations.coco.json": 3}, 3),
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Training and validation samples: [(number, (path of the image, [(class, x, y, width, height)]))]."""
    folder = tmp_path_factory.mktemp("drawn") / "shapes"
    ensure_shapes(str(folder), train_images=8, val_images=3, height=96, width=128, seed=0)
    parts, number = [], 0
    for split in ("train2017", "val2017"):
        coco = json.loads((folder / f"annotations/instances_{split}.json").read_text())
        names = {category["id"]: NAMES[category["name"]] for category in coco["categories"]}
        boxes = {image["id"]: [] for image in coco["images"]}
        for box in coco["annotations"]:
            boxes[box["image_id"]].append((names[box["category_id"]], *box["bbox"]))
        parts.append(list(enumerate([(folder / split / image["file_name"], boxes[image["id"]]) for image in coco["images"]],
                                    number + 1)))
        number += len(parts[-1])
    return parts


def test_each_section_is_tested():
    assert re.findall(r"^## (.*)", PAGE.read_text(), re.MULTILINE) == list(WALKTHROUGHS)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("heading", WALKTHROUGHS)
def test_a_walkthrough_leads_from_the_data_to_detections(heading, samples, tmp_path):
    make, files, detected = WALKTHROUGHS[heading]
    link_project(tmp_path)
    make(tmp_path, samples)
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = "\n".join(block for kind, block in FENCED.findall(section) if kind == "shell").splitlines()
    exports = any("export.py" in line for line in lines)
    small = SMALL.format(60 if exports else 1)  # an exported file is compared with the program on real detections
    lines = [line + small * ("train.py" in line) for line in lines if not NO_PROGRAM.fullmatch(line)]
    done = subprocess.run(["bash", "-ec", "\n".join(lines)], cwd=tmp_path, env=USER_ENVIRONMENT, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-4000:]

    written = [json.loads((tmp_path / path).read_text()) for path in files]
    assert [len(coco["images"]) for coco in written] == list(files.values())
    for part, coco in zip(samples, written):
        names = {category["id"]: category["name"] for category in coco["categories"]}
        assert sorted((names[box["category_id"]], *[round(side, 3) for side in box["bbox"]]) for box in coco["annotations"]) == \
            sorted((label, *[round(side, 3) for side in box]) for _, (_, boxes) in part for label, *box in boxes)
    [metrics] = (tmp_path / "output/eval").glob(f"FasterRCNN_*_best/{list(files)[-1].split('/')[-1][:-5]}/metrics.json")
    numbers = json.loads(metrics.read_text())
    assert numbers["images"] == 3 and set(numbers["per_class"]) == {"Platelets", "RBC", "WBC"}
    listed = json.loads((tmp_path / "output/infer/detections.json").read_text())
    assert len(listed) == detected and all((tmp_path / entry["drawing"]).is_file() for entry in listed)
    if exports:
        deployed = json.loads((tmp_path / "out/detections.json").read_text())
        counts, of_deployed = ([len(entry["detections"]) for entry in entries] for entries in (listed, deployed))
        assert sum(map(bool, counts[:8])) > 4 and np.abs(np.subtract(counts, of_deployed)).sum() <= 2
