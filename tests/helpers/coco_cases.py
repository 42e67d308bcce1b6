"""Random COCO ground truth and detections, and the results of unmodified pycocotools on them."""
import contextlib
import copy
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

CATEGORIES = [3, 1, 90, 17]
DEFAULTS = {"images": 12, "objects": 6, "hits": 3, "misses": 10,  # the last three: maxima per image, per object and per image
            "crowds": 0.1, "empty": 0.0,  # probabilities of a crowd and of an empty box
            "twins": 0.0,     # probability that an object copies another object, shifted by up to two grid steps
            "without": 0.0,   # probability of an image without ground truth
            "crowded": 0.0,   # probability that an image has 10x the hits and misses
            "grid": 0.0,      # pixels to which coordinates are rounded, or 0
            "decimals": 2}    # decimal places of scores
KINDS = {
    "plain": {},
    "crowds": {"crowds": 0.5, "objects": 10},
    "tied scores": {"decimals": 1, "hits": 5, "misses": 30},
    "tied overlaps": {"grid": 12.0, "twins": 0.6, "objects": 10, "hits": 4},
    "tied overlaps with crowds": {"grid": 16.0, "twins": 0.6, "objects": 10, "crowds": 0.4, "decimals": 1},
    "empty boxes": {"empty": 0.3, "grid": 8.0},
    "more than 100 detections of a class": {"images": 4, "misses": 60, "hits": 15, "crowded": 0.7, "decimals": 1},
    "images without ground truth": {"without": 0.8},
    "hardly any detection": {"hits": 0, "misses": 1},
    "one image": {"images": 1},
}


def random_case(seed, **kind):
    """Return ground truth and detections that hit, nearly hit, miss, repeat and tie: (annotation file, results in COCO's format,
    image ids). `kind` are keys of DEFAULTS with other values."""
    kind = {**DEFAULTS, **kind}
    rng = np.random.default_rng(seed)

    def rounded(box):
        box = np.round(np.asarray(box) / kind["grid"]) * kind["grid"] if kind["grid"] else np.asarray(box)
        box[2:] = np.abs(box[2:])
        if rng.random() < kind["empty"]:
            box[2 + rng.integers(2)] = 0
        return box.tolist()

    def anywhere():
        return rounded(np.concatenate([rng.uniform(0, 150, 2), np.exp(rng.uniform(2, 5.5, 2))]))

    def detection(image, category, box, best):
        results.append({"image_id": image, "category_id": int(category), "bbox": box,
                        "score": float(np.round(rng.random() * best, kind["decimals"]))})

    annotations, results, images = [], [], rng.permutation(np.arange(100, 100 + kind["images"])).tolist()
    for image in images:
        many = 10 if rng.random() < kind["crowded"] else 1
        own = []
        for _ in range(0 if rng.random() < kind["without"] else rng.integers(0, kind["objects"] + 1)):
            box, category = anywhere(), int(rng.choice(CATEGORIES[:3]))
            if own and rng.random() < kind["twins"]:
                box, category = own[rng.integers(len(own))]
                box = [box[0] + rng.choice([-2, 0, 2]) * kind["grid"], *box[1:]]
            own.append((box, category))
            area = rng.choice([32.0 ** 2, 96.0 ** 2, box[2] * box[3], box[2] * box[3] * rng.uniform(0.3, 1)])
            annotations.append({"id": len(annotations) + 1, "image_id": image, "category_id": category, "bbox": box,
                                "area": float(area), "iscrowd": int(rng.random() < kind["crowds"])})
            for _ in range(many * rng.integers(0, kind["hits"] + 1)):
                near = np.array(box) + rng.normal(0, 0.08, 4) * np.array(box)[[2, 3, 2, 3]]
                detection(image, category, rounded(near), 1.0)
        for _ in range(many * rng.integers(0, kind["misses"] + 1)):
            detection(image, rng.choice(CATEGORIES), anywhere(), 0.6)
    results = [results[number] for number in rng.permutation(len(results))]
    coco_json = {"info": {}, "images": [{"id": image} for image in images], "annotations": annotations,
                 "categories": [{"id": category, "name": str(category)} for category in CATEGORIES]}
    return coco_json, results, images


def plain_pycocotools(coco_json, results, category_ids=()):
    """Return the COCOeval after evaluate, accumulate and summarize on `results`, restricted to `category_ids` if given."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth, found = COCO(), COCO()
        ground_truth.dataset = copy.deepcopy(coco_json)
        ground_truth.createIndex()
        if results:
            found = ground_truth.loadRes(copy.deepcopy(results))
        evaluation = COCOeval(ground_truth, found, "bbox")
        evaluation.params.catIds = list(category_ids) or evaluation.params.catIds
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
