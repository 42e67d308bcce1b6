"""Runs the commands of README.md that need no other hardware, and some of docs, as written, see tests/e2e/docs.

They run in order in one folder, with tiny data and with additional arguments that reduce the work. The commands for a user's
data are written for Ascend; here they run with the README's changes for a CPU.
"""
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from src.dataset.shapes import ensure_shapes
from tests.helpers.markdown_blocks import README, ROOT
from tests.helpers.scripts import USER_ENVIRONMENT
from tests.helpers.shell_commands import commands, marks_of

TREE = ["config", "src", "tools", "deploy", "train.py", "eval.py", "infer.py", "export.py"]
ON_A_CPU = {"resnet50": "resnet18", "--device_target Ascend --mix True": "--device_target CPU --mix False"}
FEW_SHAPES = {"train_images": 10, "val_images": 2, "height": 64, "width": 64, "seed": 0}
# This keeps the shapes of the weights equal to the published detectors.
FEW_BOXES = {"rpn_head.train_proposal.pre_nms_top_n": 50, "rpn_head.train_proposal.post_nms_top_n": 40,
             "rpn_head.test_proposal.pre_nms_top_n": 50, "rpn_head.test_proposal.post_nms_top_n": 40,
             "bbox_head.bbox_assigner.rois_per_batch": 16}
# Part of a command -> arguments that are added to it.
SMALL = {
    "--config": " ".join(["-o data.target_size=[64,64] backbone.frozen=True compile_cache=graphs",
                          *(f"{key}={value}" for key, value in FEW_BOXES.items())]),
    "faster_rcnn_resnet50_fpn": "data.dataset_dir=coco2017 backbone.pretrained=False epochs=1",
    "resnet18_fpn_shapes": " ".join(f"data.draw_shapes.{key}={value}" for key, value in FEW_SHAPES.items()),
    "resnet18_fpn_finetune": "epochs=1",
}
# PyNative mode, because compiling a graph for two images takes longer than using it. Commands with --mix True keep graph mode.
WITHOUT_A_GRAPH = re.compile(r"python (eval|infer|train)\.py (?!.*--mix True)")
# Program -> the flag or file pattern of its main output.
WRITES = {
    "train.py": "checkpoint/*.ckpt", "eval.py": "eval/metrics.json", "infer.py": "detections.json",
    "export.py": "--output", "tools/browse_dataset.py": "browse.jpg", "tools/labels_to_coco.py": "--output",
    "deploy/detect.py": "detections.json",
}
# The commands of docs that also run. Other tests cover the remaining commands.
FROM_DOCS = re.compile(r"mpirun .*|.* --output (detector\.onnx|out)")
PROGRAM = re.compile(r"python (\S+\.py)")


def runnable():
    """Return the commands. Commands with a finetune configuration are changed to run on a CPU."""
    found = []
    for command in [*commands([README]), *filter(FROM_DOCS.fullmatch, commands())]:
        if "_finetune.yml" in command:
            for old, new in ON_A_CPU.items():
                command = command.replace(old, new)
        if not marks_of(command) and command not in found:
            found.append(command)
    return found


def small(command):
    """Return the command with its additional arguments."""
    words = [words for part, words in SMALL.items() if part in command.partition(" --checkpoint_path ")[0]]
    return " ".join([command, *words, *(["ms_mode=1"] if WITHOUT_A_GRAPH.search(command) else [])])


def furnish(folder):
    """Put the project, its environment and the data into the folder of the commands."""
    for name in TREE:
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    for name in ("coco2017", "drawn"):
        ensure_shapes(str(folder / name), **FEW_SHAPES)
    for split in ("train2017", "val2017"):
        edit_categories(folder / "coco2017/annotations" / f"instances_{split}.json", lambda old: old + more_than(old, 80))
    write_voc(folder / "drawn", folder / "VOCdevkit/VOC2007")
    (folder / "data/own").mkdir(parents=True)
    (folder / "data/own/images").symlink_to(folder / "VOCdevkit/VOC2007/JPEGImages")


def edit_categories(path, edit):
    """Replace the categories of a COCO annotation file by edit(list of categories)."""
    contents = json.loads(path.read_text())
    path.write_text(json.dumps({**contents, "categories": edit(contents["categories"])}))


def more_than(categories, count):
    """Return additional categories, which extend `categories` to `count`."""
    return [{"id": 1000 + number, "name": f"thing {number}"} for number in range(len(categories), count)]


def write_voc(coco, voc):
    """Write the training part of a COCO data set as VOC XML files and images."""
    contents = json.loads((coco / "annotations/instances_train2017.json").read_text())
    names = {category["id"]: category["name"] for category in contents["categories"]}
    (voc / "Annotations").mkdir(parents=True)
    shutil.copytree(coco / "train2017", voc / "JPEGImages")
    for image in contents["images"]:
        objects = [(names[row["category_id"]], row["bbox"]) for row in contents["annotations"] if row["image_id"] == image["id"]]
        text = "".join(
            f"<object><name>{name}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax>"
            f"<ymax>{y + h}</ymax></bndbox></object>" for name, (x, y, w, h) in objects)
        (voc / "Annotations" / f"{Path(image['file_name']).stem}.xml").write_text(
            f"<annotation><filename>{image['file_name']}</filename><size><width>{image['width']}</width>"
            f"<height>{image['height']}</height></size>{text}</annotation>")


def run(home, command):
    """Run a command and return the finished process with both output streams combined."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(["bash", "-c", command], cwd=home, env={**USER_ENVIRONMENT, "PATH": path}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)


def bring(home, command):
    """Provide the checkpoint of the 12th epoch that a user has at this point; returns the command."""
    epoch1, epoch12 = (home / f"output/checkpoint/FasterRCNN_det_resnet50_epoch{epoch}_rank0.ckpt" for epoch in (1, 12))
    if epoch1.exists() and not epoch12.exists():
        os.link(epoch1, epoch12)
    return command


def finish(home, command):
    """Run a command; returns (finished process, its main output files)."""
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    done = run(home, small(bring(home, command)))
    pattern = WRITES[PROGRAM.search(command)[1]]
    if pattern.startswith("--"):
        words = shlex.split(command)
        pattern = words[words.index(pattern) + 1]
    return done, [path for path in home.rglob(pattern) if before.get(path) != path.stat().st_mtime_ns]
