"""A checkpoint in an empty folder detects, evaluates and exports as in its run, with settings that only its training had."""
import json
import shutil

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.run_files import read_json
from tests.helpers.scripts import run_script

NARROW = {"rpn_head.feat_channel": 32, "backbone.out_channels": 32, "bbox_head.head": "{in_channel: 32, out_channel: 64}"}
# Two canvases, Albumentations and accumulation are in the YAML file of the first training; the second one has no file.
SETTINGS = {
    "resnet18": {"data.classes": "[star,circle]", "bbox_head.bbox_weights": "[8,8,4,4]", "epochs": 2},
    "resnet50": {
        "backbone.pretrained": False, **NARROW, "data.target_size": "[96,128]", "data.unite_classes": True, "mix": False,
        "rpn_head.anchor_generator.anchor_sizes": "[[8],[16],[24],[32],[48]]", "rpn_head.test_proposal.post_nms_top_n": 60,
        "data.val_anno_path": "annotations/without_star.json", "infer.conf_threshold": 0.01, "epochs": 1, "batch_size": 1,
        "backbone.frozen_2stage": False, "data.eval_transforms.item_transforms":
            "[Resize: {shrink: area}, NormalizeImage: {mean: [0.5,0.5,0.5]}, TransposeImage: {}, LabelsPadding: {}]"}}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_checkpoint_is_enough(name, workspace, two_canvases, data_folder, compiled):
    trained, empty, flags = workspace / name, workspace / f"{name}_copied", []
    cache = ["--compile_cache", compiled]
    overrides, images = ["-o", *(f"{key}={value}" for key, value in SETTINGS[name].items())], data_folder / "val2017"
    if name == "resnet18":
        overrides, images = ["--config", two_canvases, *overrides], workspace / "mixed" / "val2017"
    else:
        coco = read_json(data_folder, "annotations", "instances_val2017.json")
        coco["categories"] = [category for category in coco["categories"] if category["name"] != "star"]
        known = {category["id"] for category in coco["categories"]}
        coco["annotations"] = [row for row in coco["annotations"] if row["category_id"] in known]
        (data_folder / "annotations" / "without_star.json").write_text(json.dumps(coco))
        overrides.append(f"data.dataset_dir={data_folder}")

    def run(script, *words, status=0, folder=empty):
        done = run_script(ROOT / script, *flags, *words, folder=folder)
        assert done.returncode == status, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout + done.stderr

    run("train.py", *cache, "--save_dir", trained, "--run_eval", "True", *overrides, folder=ROOT)
    [path] = (trained / "checkpoint").glob(f"*_epoch{SETTINGS[name]['epochs']}_rank0.ckpt")
    empty.mkdir()
    shutil.copy(path, empty / "a.ckpt")
    flags += ["--checkpoint_path", "a.ckpt"]
    text = run("eval.py", *cache)
    assert text.count("settings: from the training of a.ckpt") == 1 and "trained with other settings" not in text
    rows = read_json(trained, "eval", "bbox_results.json")
    [found] = empty.rglob("bbox_results.json")
    assert json.loads(found.read_text()) == rows != []

    text = run("infer.py", "--image", images, "--save_dir", "drawn", "--conf_threshold", "0.01", *cache)
    assert "trained with other settings" not in text
    entries = {entry["file"].rpartition("/")[2]: entry["detections"] for entry in read_json(empty, "drawn", "detections.json")}
    coco = read_json(images.parent, "annotations", "instances_val2017.json")
    names = {category["id"]: category["name"] for category in coco["categories"]}
    assert {image: [(row["bbox"], row["category"], row["score"]) for row in found] for image, found in entries.items()} == {
        image["file_name"]: [(row["bbox"], names.get(row["category_id"], "star"), row["score"]) for row in rows
                             if row["image_id"] == image["id"]] for image in coco["images"]}

    run("export.py", "--output", "bare.onnx")
    exported = [word for word in overrides if not str(word).startswith(("mix=", "infer."))]  # export.py has defaults
    run("export.py", "--output", empty / "full.onnx", "--checkpoint_path", empty / "a.ckpt", *exported, folder=ROOT)
    assert (empty / "bare.onnx").read_bytes() == (empty / "full.onnx").read_bytes()

    if name == "resnet18":
        text = run("eval.py", "-o", "data.classes=null", "bbox_head.bbox_weights=[10,10,5,5]", status=1)
        [line] = [line.split() for line in text.splitlines() if "bbox_weights" in line]
        assert line == ["bbox_head.bbox_weights", "[8.0,", "8.0,", "4.0,", "4.0]", "[10.0,", "10.0,", "5.0,", "5.0]"]
        assert "error: a.ckpt has 2 classes, but" in text and "give -o data.unite_classes=True" in text
