"""Divide a COCO annotation file at random into one for training and one for validation: python tools/split_coco.py --annotations
FILE --images FOLDER --train FILE --val FILE (--help lists all).

Images of one scene, patient or film are alike: where they are in both files, the score is too optimistic. Divide such data by
hand.
"""
import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from src.errors import UserError
from src.files import prepare_output
from src.launch import launch
from tools.coco_output import write_annotations

logger = logging.getLogger("faster_rcnn")


def main(args, *_):
    # Imported here, as OpenCV reads the environment that `launch` has prepared.
    from src.dataset.annotations import load_coco

    if not 0 < args.val_fraction < 1:
        raise UserError(f"--val_fraction must be above 0 and below 1, not {args.val_fraction:g}.")
    if args.seed < 0:
        raise UserError(f"--seed must be at least 0, not {args.seed}.")
    if Path(args.train).resolve() == Path(args.val).resolve():
        raise UserError(f"--train and --val are both {args.train}; give two files.")
    for path in (args.train, args.val):
        prepare_output(path)
    coco = load_coco(args.annotations, args.images).coco_json
    held_out = choose({image["id"] for image in coco["images"]}, args.val_fraction, args.seed, args.annotations)
    for path, is_val in ((args.train, False), (args.val, True)):
        images = [image for image in coco["images"] if (image["id"] in held_out) == is_val]
        boxes = [entry for entry in coco["annotations"] if (entry["image_id"] in held_out) == is_val]
        write_annotations(path, images, boxes, coco["categories"])
        logger.info("%s: %d images, %d boxes", path, len(images), len(boxes))


def choose(image_ids: set, fraction: float, seed: int, path: str) -> set:
    """Ids of about `fraction` (above 0 and below 1) of the images in the file `path`, drawn at random whatever their order.

    Raises:
        UserError: there is only one image.
    """
    if len(image_ids) < 2:
        raise UserError(f"{path} has one image only: it cannot be divided.")
    count = min(max(1, round(fraction * len(image_ids))), len(image_ids) - 1)
    return set(np.random.default_rng(seed).permutation(sorted(image_ids))[:count].tolist())


def parse_args():
    parser = argparse.ArgumentParser(
        description="Divide a COCO annotation file at random into one for training and one for validation.", allow_abbrev=False,
        epilog="Masks are left out, and annotations get new ids. Both files list all classes.")
    parser.add_argument("--annotations", required=True, metavar="FILE", help="COCO annotation file of all images")
    parser.add_argument("--images", required=True, metavar="FOLDER", help="folder with the images")
    parser.add_argument("--train", required=True, metavar="FILE", help="annotation file to write, .json")
    parser.add_argument("--val", required=True, metavar="FILE", help="the other one")
    parser.add_argument("--val_fraction", type=float, default=0.2, metavar="FRACTION",
                        help="share of the images that goes to --val (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
