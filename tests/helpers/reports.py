"""Evaluations for reports: generated images with annotations, and detections that hit, nearly hit, miss, repeat and confuse
classes."""
import base64
import copy
import json

import numpy as np

from src.dataset.annotations import load_coco
from src.dataset.shapes import ensure_shapes
from src.evaluation.coco import score

SCRIPT = "<script>alert(1)</script>"


def drawn_dataset(folder, images=30):
    """Return the validation part of the generated shapes; one class is called SCRIPT, and image 3 has a crowd."""
    ensure_shapes(str(folder), train_images=1, val_images=images, height=96, width=128, seed=3)
    path = folder / "annotations" / "instances_val2017.json"
    text = path.read_text().replace('"star"', f'"{SCRIPT}"')
    path.write_text(text)
    dataset = load_coco(str(path), str(folder / "val2017"))
    next(row for row in dataset.coco_json["annotations"] if row["image_id"] == dataset.records[2].image_id)["iscrowd"] = 1
    return dataset


def evaluated(dataset, seed=0, noise=0.12, skipped=()):
    """Return the Evaluation of noisy annotations as detections, some duplicated or with the wrong class, and random ones."""
    rng = np.random.default_rng(seed)
    results = []
    for row in dataset.coco_json["annotations"]:
        for _ in range(rng.choice(3, p=[0.15, 0.6, 0.25])):
            box = np.array(row["bbox"]) + rng.normal(0, noise, 4) * np.array(row["bbox"])[[2, 3, 2, 3]]
            category = row["category_id"] if rng.random() < 0.8 else int(rng.choice(dataset.category_ids))
            results.append(result(row["image_id"], category, box, rng.uniform(0.3, 1)))
    for record in dataset.records:
        for _ in range(rng.integers(4)):
            box = [*rng.uniform(0, 90, 2), *rng.uniform(5, 40, 2)]
            results.append(result(record.image_id, int(rng.choice(dataset.category_ids)), box, rng.uniform(0.05, 0.7)))
    ids = [record.image_id for record in dataset.records if record.image_id not in skipped]
    results = [row for row in results if row["image_id"] in ids]
    evaluation = score(copy.deepcopy(dataset.coco_json), results, ids, dataset.names, dataset.category_ids)
    evaluation.metrics.update(skipped_images=len(skipped), skipped_image_ids=list(skipped))
    return evaluation


def result(image_id, category_id, box, value):
    """Return a row of COCO's result format with a float32 score, as from a detector."""
    return {"image_id": image_id, "category_id": category_id, "bbox": np.abs(box).tolist(), "score": float(np.float32(value))}


def contents_of(path):
    """Return the data that the scripts of a page receive, with arrays."""
    text = path.read_text(encoding="utf-8")
    start = text.index('<script type="application/json" id="data">')
    return json.loads(text[text.index(">", start) + 1:text.index("</script>", start)], object_hook=unpacked)


def unpacked(value):
    """Return the array that src.report.page.packed has packed, or any other dict unchanged."""
    if "base64" not in value:
        return value
    return np.frombuffer(base64.b64decode(value["base64"]), "<" + np.dtype(value["type"][:-5].lower()).str[1:])
