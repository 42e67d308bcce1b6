"""The README's commands for any machine, and some of docs, run as written, on tiny data with options that reduce the work."""
import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from src.dataset.shapes import ensure_shapes
from tests.helpers.markdown import README, commands, marks_of
from tests.helpers.paths import ROOT
from tests.helpers.scripts import USER_ENVIRONMENT, link_project

FEW_SHAPES = {"train_images": 10, "val_images": 2, "height": 64, "width": 64, "seed": 0}
# Part of a command -> arguments that are added to it. The shapes of the weights are those of the published detectors.
SMALL = {
    "--config": "-o data.target_size=[64,64] backbone.frozen=True compile_cache=graphs bbox_head.bbox_assigner.rois_per_batch=16 "
                + " ".join(f"rpn_head.{part}_proposal.{key}=50" for part in ("train", "test")
                           for key in ("pre_nms_top_n", "post_nms_top_n")),
    "resnet50_fpn": "data.dataset_dir=coco2017 backbone.pretrained=False epochs=1",
    "_fpn_shapes": " ".join(f"data.draw_shapes.{key}={value}" for key, value in FEW_SHAPES.items()),
    "_fpn_finetune": "epochs=1",
}
# Program -> the flag or file pattern of its main output. Other tests run the other programs.
WRITES = {"train.py": "checkpoint/*.ckpt", "eval.py": "eval/*/*/metrics.json", "infer.py": "detections.json",
          "export.py": "--output", "tools/browse_dataset.py": "browse.jpg", "deploy/detect.py": "detections.json"}
PAGES = [ROOT / "docs" / name for name in ("devices.md", "deployment.md")]
FROM_DOCS = re.compile(r"mpirun .* python eval.py .*|.* --output (detector\.onnx|out)")


def runnable():
    found = [*commands([README]), *filter(FROM_DOCS.fullmatch, commands(PAGES))]
    return [command for command in dict.fromkeys(found) if not marks_of(command) and program_of(command) in WRITES]


def program_of(command):
    return re.search(r"python (\S+\.py)", command)[1]


def furnish(folder):
    """Put the project, its environment, and data in COCO's and in a user's layout into the folder of the commands."""
    link_project(folder)
    (folder / ".venv").symlink_to(sys.prefix)
    for name in ("coco2017", "data/own"):
        ensure_shapes(str(folder / name), **FEW_SHAPES)
    for name, target in {"JPEGImages": "train2017", "train.json": "annotations/instances_train2017.json",
                         "val.json": "annotations/instances_train2017.json"}.items():
        (folder / "data/own" / name).symlink_to(folder / "data/own" / target)
    for path in (folder / "coco2017/annotations").iterdir():
        content = json.loads(path.read_text())
        content["categories"] += [{"id": 1000 + number, "name": f"thing {number}"} for number in range(76)]
        path.write_text(json.dumps(content))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_commands_run_and_write_what_they_promise(tmp_path):
    furnish(tmp_path)
    found = runnable()
    assert {program_of(command) for command in found} == WRITES.keys() and any(command.startswith("mpirun") for command in found)
    for command in found:
        for path in re.findall(r"output/checkpoint/\S+", command):  # a user has it after a whole training and before the next one
            if not (tmp_path / path).exists():
                name = path.split("/")[-1].replace("epoch12", "epoch1")
                os.link(max(tmp_path.glob(f"output/**/{name}"), key=os.path.getmtime), tmp_path / path)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        words = " ".join(words for part, words in SMALL.items() if part in command.partition(" --checkpoint_path ")[0])
        done = subprocess.run(["bash", "-c", f"{command} {words}" if "--config" in command else command], cwd=tmp_path,
                              env=USER_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, (command, done.stdout[-4000:] + done.stderr[-4000:])
        pattern = WRITES[program_of(command)]
        pattern = shlex.split(command)[shlex.split(command).index(pattern) + 1] if pattern.startswith("--") else pattern
        assert [path for path in tmp_path.rglob(pattern) if before.get(path) != path.stat().st_mtime_ns], command
    listed = json.loads((tmp_path / "output/infer/detections.json").read_text())
    assert len(listed) == FEW_SHAPES["train_images"] and all((tmp_path / entry["drawing"]).is_file() for entry in listed)
