"""The generated data set with wide and upright images."""
import json
from pathlib import Path

import cv2

from src.dataset.shapes import ensure_shapes

REST = [{"NormalizeImage": {}}, {"TransposeImage": {}}, {"LabelsPadding": {"padding_size": 8}}]
# The canvases have the images' sizes.
TWO_CANVASES = {
    "target_size": [[64, 96], [96, 64]],
    "train_transforms": {"item_transforms": [
        {"RandomFlip": {}}, {"RandomVerticalFlip": {}}, {"RandomRotate90": {}}, {"RandomCrop": {}},
        {"PhotometricDistortion": {}}, {"Albumentations": [{"GaussNoise": {"p": 0.5}}, {"RandomRotate90": {"p": 0.5}}]},
        {"ScaleJitter": {"shortest": [48, 80], "longest": None}}, *REST]},
    "eval_transforms": {"item_transforms": [{"Resize": {"shortest": 64, "longest": 96}}, *REST]}}


def draw_mixed_shapes(folder: Path, **shapes):
    """Generate the data set of `ensure_shapes` with a width of 96, and turn every seventh image of both splits by 90 degrees
    counterclockwise. Return the section `data` of a configuration for it, with two canvases and augmentation."""
    ensure_shapes(str(folder), **{**shapes, "width": 96})
    for split in ("train2017", "val2017"):
        path = folder / "annotations" / f"instances_{split}.json"
        coco = json.loads(path.read_text())
        for image in coco["images"][::7]:
            file = str(folder / split / image["file_name"])
            cv2.imwrite(file, cv2.rotate(cv2.imread(file), cv2.ROTATE_90_COUNTERCLOCKWISE))
            for row in coco["annotations"]:
                if row["image_id"] == image["id"]:
                    x, y, width, height = row["bbox"]
                    row["bbox"] = [y, image["width"] - x - width, height, width]
            image["height"], image["width"] = image["width"], image["height"]
        path.write_text(json.dumps(coco))
    return {"dataset_dir": str(folder), "draw_shapes": None, **TWO_CANVASES}
