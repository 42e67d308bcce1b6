"""Compute COCO's twelve numbers from a detections.json of infer.py or deploy/detect.py: python tools/score_detections.py
ANNOTATIONS DETECTIONS (--help lists all).

Detect with a low confidence threshold, such as --conf_threshold 0.05, because all detections are scored, as in eval.py.
"""
import argparse
import json
import logging
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.errors import UserError, short_repr
from src.run.launch import launch

logger = logging.getLogger("faster_rcnn")


def main(args: argparse.Namespace, *_) -> None:
    """Log the numbers, and write them to a file if --json is given."""
    from src.dataset.annotations import parse_annotations, read_classes
    from src.evaluation.coco import score
    from src.run.files import atomic_write, prepare_output

    if args.json:
        prepare_output(args.json)
    coco = parse_annotations(args.annotations)
    names, category_ids = read_classes(coco["categories"], args.annotations)
    results, image_ids = result_rows(read_listing(args.detections), coco, dict(zip(names, category_ids)), args.annotations)
    if len(image_ids) < len(coco["images"]):
        logger.warning("%d of %d images of %s are not in %s and are not scored", len(coco["images"]) - len(image_ids),
                       len(coco["images"]), args.annotations, args.detections)
    metrics = score(coco, results, image_ids, names, category_ids).metrics
    if args.json:
        with atomic_write(args.json) as temporary:
            Path(temporary).write_text(json.dumps(metrics), encoding="utf-8")


def read_listing(path: str) -> list[dict]:
    """Return the entries of a detections.json, or raise a UserError if it cannot be read or has another format."""
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
        for entry in entries:
            for row in entry["detections"]:
                row["category"], row["bbox"], row["score"]
            Path(entry["file"])
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path} is no detections.json of infer.py or deploy/detect.py.") from error
    return entries


def result_rows(entries: list[dict], coco: dict, categories: dict[str, int], path: str) -> tuple[list[dict], list[int]]:
    """Return the detections in COCO's result format, and the image ids. The longest file_name that ends an entry's path matches.

    `entries` are from detections.json, `coco` from the annotation file `path`, and `categories` is {name: category id}.

    Raises:
        UserError: an entry matches no image or several, an image has two entries, or a class is not in the annotations.
    """
    ids: dict = defaultdict(list)
    results, image_ids = [], []
    for image in coco["images"]:
        ids[Path(image["file_name"]).parts].append(image["id"])
    for entry in entries:
        parts = Path(entry["file"]).parts
        found = next((ids[parts[start:]] for start in range(len(parts)) if parts[start:] in ids), [])
        if len(found) != 1:
            raise UserError(f"{entry['file']} must be listed once, and its path must end with the file_name of exactly one image "
                            f"of {path}; detect on the folder of these images.")
        image_ids.append(found.pop())  # a second entry for the same image finds no id
        for row in entry["detections"]:
            if row["category"] not in categories:
                raise UserError(f"{entry['file']} has a detection of the class {short_repr(row['category'])}, which {path} "
                                "does not have.")
            results.append({"image_id": image_ids[-1], "category_id": categories[row["category"]], "bbox": row["bbox"],
                            "score": row["score"]})
    return results, image_ids


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="COCO's twelve numbers of a detections.json.", allow_abbrev=False)
    parser.add_argument("annotations", help="COCO annotation file of the images")
    parser.add_argument("detections", help="detections.json that infer.py or deploy/detect.py has written")
    parser.add_argument("--json", default="", help="file to write the numbers to (default: none)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
