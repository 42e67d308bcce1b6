"""eval.py on a converted checkpoint writes torchvision's detections."""
import json
import re

import cv2
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.helpers import run_files
from tests.helpers.parity.comparison import share_of_equal_detections
from tests.helpers.parity.drawn_detector import CONFIG, torchvision_state
from tests.helpers.scripts import run_script

CATEGORY_IDS = [7, 2, 30]  # category ids of the labels; sorted: 2, 7, 30


@pytest.fixture(scope="module")
def folder(stored, tmp_path_factory):
    """The two photographs as PNG files with a COCO annotation file, and torchvision's weights."""
    folder = tmp_path_factory.mktemp("parity")
    (folder / "val2017").mkdir()
    (folder / "annotations").mkdir()
    annotations = []
    for i, pixels in enumerate(stored["image"]):
        cv2.imwrite(str(folder / "val2017" / f"{i}.png"), pixels[..., ::-1])
        for (x1, y1, x2, y2), label in zip(stored[f"gt_boxes_{i}"].tolist(), stored[f"gt_labels_{i}"]):
            annotations.append({"id": len(annotations) + 1, "image_id": i, "category_id": sorted(CATEGORY_IDS)[label],
                                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0})
    images = [{"id": i, "file_name": f"{i}.png", "height": 320, "width": 416} for i in range(2)]
    categories = [{"id": i, "name": f"class {i}"} for i in CATEGORY_IDS]
    with open(folder / "annotations" / "instances_val2017.json", "w") as file:
        json.dump({"images": images, "categories": categories, "annotations": annotations}, file)
    save_file(torchvision_state(int(stored["num_classes"]), int(stored["salt"])), folder / "torchvision.safetensors")
    return folder


@pytest.fixture(scope="module")
def results(folder):
    """The rows of bbox_results.json in PyNative mode; test_parity_cases.py has detections of the graph."""
    for command in (["tools/convert_torchvision.py", folder / "torchvision.safetensors", folder / "converted.ckpt"],
                    ["eval.py", "--config", CONFIG, "--device_target", "CPU", "--ms_mode", "1", "--save_dir", folder / "output",
                     "--checkpoint_path", folder / "converted.ckpt",
                     "-o", f"data.dataset_dir={folder}", "data.target_size=[320,416]"]):
        done = run_script(*command)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads((run_files.results(folder / "output") / "bbox_results.json").read_text())


@pytest.mark.parametrize("image", range(2))
def test_detections(results, stored, image):
    rows = [row for row in results if row["image_id"] == image]
    boxes = np.array([row["bbox"] for row in rows])
    boxes[:, 2:] += boxes[:, :2]
    labels = np.array([sorted(CATEGORY_IDS).index(row["category_id"]) for row in rows])
    expected = [stored[f"det_{key}_{image}"] for key in ("boxes", "scores", "labels")]
    assert len(rows) == len(expected[0]) == 100
    assert share_of_equal_detections((boxes, np.array([row["score"] for row in rows]), labels), expected) >= 0.99


def test_comparison_of_detections(results, stored, folder):
    """tests/programs/compare_detections.py on torchvision's results, in which the scores of the second image are wrong."""
    arrays = {f"{key}_{i}": stored[f"det_{key}_{i}"] for key in ("boxes", "scores", "labels") for i in range(2)}
    arrays["scores_1"] = arrays["scores_1"] + 0.002
    np.savez(folder / "stored.npz", **arrays, **{f"image_{i}": stored["image"][i] for i in range(2)})
    done = run_script("tests/programs/compare_detections.py", folder / "stored.npz", folder / "converted.ckpt", CONFIG)
    first, second = re.search(r"equal are (\d+) of 200 .* (\d+) of 200", done.stdout).groups()
    assert 99 <= int(first) <= 100 and 99 <= int(second) <= 100 and done.returncode == 1
