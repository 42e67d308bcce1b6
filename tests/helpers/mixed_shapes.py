"""The drawn data set with wide and upright images."""
import json

import cv2

from src.dataset.shapes import ensure_shapes


def draw_mixed_shapes(folder, turned=2, **shapes):
    """Draw the data set, and turn every `turned`-th image of both splits by 90 degrees counterclockwise.

    Args:
        folder: Path.
        turned: 2 turns every second image.
        shapes: see `ensure_shapes`.
    """
    ensure_shapes(str(folder), **shapes)
    for split in ("train2017", "val2017"):
        path = folder / "annotations" / f"instances_{split}.json"
        coco = json.loads(path.read_text())
        for image in coco["images"][::turned]:
            file = str(folder / split / image["file_name"])
            cv2.imwrite(file, cv2.rotate(cv2.imread(file), cv2.ROTATE_90_COUNTERCLOCKWISE))
            for row in coco["annotations"]:
                if row["image_id"] == image["id"]:
                    x, y, width, height = row["bbox"]
                    row["bbox"] = [y, image["width"] - x - width, height, width]
            image["height"], image["width"] = image["width"], image["height"]
        path.write_text(json.dumps(coco))
