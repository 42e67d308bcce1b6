"""infer.py and the samples of an evaluation, as processes with a detector trained for one epoch."""
import json
import re
from collections import Counter

import cv2
import numpy as np

from deploy.drawing import draw_boxes
from src.visualization.fonts import find_fonts
from tests.helpers.run_files import results

CLASSES = ["circle", "rectangle", "triangle", "star"]


def test_every_readable_image_is_listed_with_its_size(inferred, images):
    folder, entries, output = inferred
    sizes = {name: (entry["width"], entry["height"]) for name, entry in entries.items()}
    assert sizes == {"plain.png": (64, 64), "alpha.webp": (64, 64), "grey.bmp": (64, 64), "tiny.jpg": (40, 30),
                     "LARGE.JPG": (3000, 2000), "plain.tif": (1, 1), "turned.jpg": (60, 90),
                     "wide.png": (300, 200), "high.bmp": (33, 90),
                     **{f"00000{number}.jpg": (64, 64) for number in (1, 2, 3, 4)}}
    assert f"10 files in {images}; 2 other files and folders are ignored" in output
    assert f"WARNING {images}/damaged.jpg the file is truncated" in output
    assert "detected on 13 images; 1 could not be read" in output
    assert "are not known" not in output
    assert "confidence threshold: 0.01, from the command line; the configuration's" in output
    counts = Counter(row["category"] for row in entries["wide.png"]["detections"])
    [line] = re.findall(rf"\d+ of 14: {images}/wide.png: (.*)", output)
    by_class = [f"{count} {name}" for name, count in counts.most_common()]
    assert line.split(", ") == [f"{sum(counts.values())} detections", *by_class]
    assert output.count(" of 14: ") == 13 and f"drawn into {folder}, listed in" in output


def test_drawings(inferred):
    """There is one drawing per image. Small images are enlarged."""
    folder, entries, _ = inferred
    drawings = {name: entry["drawing"].rpartition("/")[2] for name, entry in entries.items()}
    assert sorted([*drawings.values(), "detections.json"]) == sorted(path.name for path in folder.iterdir())
    assert drawings["plain.png"] == "plain.png" and drawings["plain.tif"] == "plain.jpg" and drawings["LARGE.JPG"] == "LARGE.jpg"
    for name, drawing in drawings.items():
        height, width = cv2.imread(str(folder / drawing)).shape[:2]
        entry = entries[name]
        assert height * entry["width"] == width * entry["height"] and max(height, width) >= 480
    assert any(len(entry["detections"]) > 5 for entry in entries.values())


def test_names_in_any_script(inferred, workspace, run, checkpoint, images):
    """The same detections with other class names, which are drawn correctly."""
    folder, path = workspace / "cyrillic", images / "plain.png"
    names = ["круг", "угол", "τρίγωνο", "αστέρι"]
    run("infer.py", "--ckpt_path", checkpoint, "--image", path, "--save_dir", folder, "--conf_threshold", "0.01",
        "-o", f"data.names=[{','.join(names)}]")
    [entry] = json.loads((folder / "detections.json").read_text())
    _, entries, _ = inferred
    assert [row["category"] for row in entry["detections"]] == [
        names[CLASSES.index(row["category"])] for row in entries["plain.png"]["detections"]] != []
    boxes = np.array([row["bbox"] for row in entry["detections"]])
    boxes[:, 2:] += boxes[:, :2]
    labels, scores = zip(*((row["label"], row["score"]) for row in entry["detections"]))
    drawing, image = (cv2.imread(str(each))[..., ::-1].astype(np.uint8) for each in (entry["drawing"], path))
    right, wrong = (np.abs(draw_boxes(image, boxes, scores, labels, names, fonts).astype(int) - drawing).mean()
                    for fonts in (find_fonts(names, ""), ()))
    assert right < wrong / 2


def test_detections_are_those_of_an_evaluation(inferred, workspace, run, trained, checkpoint, shapes):
    """Detections are bit-identical and in the same order. Both evaluations have drawn samples.

    Batch size 1 is used because an image must have the same neighbours in its batch as in infer.py: none.
    """
    _, entries, _ = inferred
    run("eval.py", "--checkpoint_path", checkpoint, "--batch_size", "1", "--save_dir", workspace / "scored")
    rows = json.loads((results(workspace / "scored") / "bbox_results.json").read_text())
    coco = json.loads((shapes / "annotations" / "instances_val2017.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    label_of = {category_id: CLASSES.index(name) for category_id, name in names.items()}
    assert rows
    for image in coco["images"]:
        expected = [{"bbox": row["bbox"], "category": names[row["category_id"]], "label": label_of[row["category_id"]],
                     "score": row["score"]} for row in rows if row["image_id"] == image["id"]]
        assert entries[image["file_name"]]["detections"] == expected
    for entry in entries.values():
        for found in entry["detections"]:
            x, y, width, height = found["bbox"]
            assert min(x, y) >= 0 and x + width <= entry["width"] + 1e-3 and y + height <= entry["height"] + 1e-3
    # The same pixels, stored without loss and rotated, have the same detections.
    assert entries["plain.png"]["detections"] == entries["000001.jpg"]["detections"]
    for folder in (trained / "eval", results(workspace / "scored")):
        samples = sorted((folder / "samples").iterdir())
        assert [path.name for path in samples] == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
        assert cv2.imread(str(samples[0])).shape[1] == 2 * 640 + 3 * 10
