"""Make a data set of random crops and quarter turns of another one: crop_dataset.py IN OUT [--copies N] [--seed SEED].

IN and OUT are folders with the layout of COCO2017. Each image becomes N images. A crop has 40% to 90% of each side of the image,
in whole pixels, so that few sizes are equal or multiples of 32. Half of the crops are then rotated by 90, 180 or 270 degrees.
Boxes of which less than half remains are dropped. The images are stored without loss.
"""
import argparse
import itertools
import json
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src.dataset.annotations import load_coco  # noqa: E402
from src.dataset.image import read_image  # noqa: E402
from src.dataset.resize import MAX_CROPS, Sample, crop  # noqa: E402
from src.dataset.transforms import random_rotate90  # noqa: E402

SIDES = 0.4, 0.9


def random_part(sample, rng):
    """Return a random crop with a box, rotated with probability 0.5. If MAX_CROPS crops have no box, use the whole image."""
    part = sample
    for _ in range(MAX_CROPS):
        height, width = (round(side * rng.uniform(*SIDES)) for side in sample.size)
        top, left = (int(rng.integers(0, rest + 1)) for rest in (sample.size[0] - height, sample.size[1] - width))
        part = crop(sample, (left, top, left + width, top + height), min_area=0.5)
        if len(part.boxes):
            break
    return random_rotate90(part if len(part.boxes) else sample, rng, prob=0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    (args.target / "annotations").mkdir(parents=True)
    for part in ("train2017", "val2017"):
        dataset = load_coco(str(args.source / f"annotations/instances_{part}.json"), str(args.source / part))
        images, annotations = [], []
        (args.target / part).mkdir()
        for record, copy in itertools.product(dataset.records, range(args.copies)):
            whole = Sample(read_image(record.path, (record.height, record.width)), record.boxes, record.labels)
            sample = random_part(whole, np.random.default_rng([args.seed, record.image_id, copy]))
            name, number = f"{Path(record.path).stem}_{copy}.png", len(images) + 1
            cv2.imwrite(str(args.target / part / name), cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGR))
            images.append({"id": number, "file_name": name, "height": sample.size[0], "width": sample.size[1]})
            for box, label in zip(sample.boxes.tolist(), sample.labels):
                sides = [box[2] - box[0], box[3] - box[1]]
                annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": dataset.category_ids[label],
                                    "bbox": box[:2] + sides, "area": sides[0] * sides[1], "iscrowd": 0})
        categories = [{"id": number, "name": name} for number, name in zip(dataset.category_ids, dataset.names)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (args.target / f"annotations/instances_{part}.json").write_text(json.dumps(content), encoding="utf-8")
        print(f"{part}: {len(images)} images, {len({(i['height'], i['width']) for i in images})} sizes, {len(annotations)} boxes")


if __name__ == "__main__":
    main()
