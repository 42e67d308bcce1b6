"""The report that compares two evaluations of the same images: the improvements and the regressions."""
from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import NamedTuple

from src.dataset.annotations import CocoDataset, load_coco
from src.dataset.splits import with_classes
from src.errors import UserError, short_repr
from src.evaluation.coco import KEYS, Evaluation, score, unique_names
from src.report.evaluation import match_boxes, page_contents, scored_records
from src.report.page import write_page

TOLERANCE = 1e-6  # for recomputed metrics


class Stored(NamedTuple):
    """The stored results of an evaluation."""
    folder: str
    metrics: dict
    results: list[dict]


def read_evaluation(folder: str) -> Stored:
    """Read metrics.json and bbox_results.json of an evaluation.

    Raises:
        UserError: the files are missing or have other content.
    """
    metrics, results = (_read_json(os.path.join(folder, name)) for name in ("metrics.json", "bbox_results.json"))
    if not (isinstance(metrics, dict) and isinstance(metrics.get("per_class"), dict)
            and all(isinstance(metrics.get(key), (int, float)) for key in (*KEYS, "images"))):
        raise UserError(f"{folder} has a metrics.json that eval.py has not written; pass the folder of an evaluation.")
    if not (isinstance(results, list) and all(map(_is_result, results))):
        raise UserError(f"{folder} has a bbox_results.json that is not in COCO's format; pass the folder of an evaluation.")
    return Stored(folder, metrics, results)


def open_dataset(stored: Sequence[Stored], annotations: str, image_dir: str) -> CocoDataset:
    """Load the data set of two evaluations from the given paths, or else from the paths in metrics.json.

    Raises:
        UserError: the evaluations have different classes or images, or the data set's paths are unknown or cannot be read.
    """
    first, other = (one.metrics for one in stored)
    for what, a, b in (("classes", *(list(metrics["per_class"]) for metrics in (first, other))),
                       ("images", *(metrics["images"] for metrics in (first, other))),
                       ("skipped images", *(sorted(metrics.get("skipped_image_ids", ())) for metrics in (first, other)))):
        if a != b:
            raise UserError(f"the evaluations have different {what}: {stored[0].folder} has {short_repr(a)}, but "
                            f"{stored[1].folder} has {short_repr(b)}; compare evaluations of the same images and classes.")
    annotations, image_dir = annotations or other.get("annotations", ""), image_dir or other.get("image_folder", "")
    if not (annotations and image_dir):
        raise UserError(f"{os.path.join(stored[1].folder, 'metrics.json')} does not say where its data set is; pass "
                        "--annotations FILE and --images FOLDER.")
    dataset, names = load_coco(annotations, image_dir), list(first["per_class"])
    return dataset if names == unique_names(dataset.names, dataset.category_ids) else with_classes(dataset, names, may_lack=True)


def score_again(stored: Stored, dataset: CocoDataset) -> Evaluation:
    """Compute the evaluation of stored detections again.

    Raises:
        UserError: the detections or metrics belong to another data set.
    """
    ids = [record.image_id for record in scored_records(dataset, stored.metrics)]
    unknown = {row["image_id"] for row in stored.results}.difference(ids)
    if unknown or len(ids) != stored.metrics["images"]:
        raise UserError(f"{dataset.annotation_path} does not have the images of {stored.folder}; pass its --annotations FILE.")
    evaluation = score(dataset.coco_json, stored.results, ids, dataset.names, dataset.category_ids)
    for key in KEYS:
        again, before = evaluation.metrics[key], stored.metrics[key]
        if abs(again - before) > TOLERANCE:
            raise UserError(f"{key} of {stored.folder} is {again:.4f} with {dataset.annotation_path}, but {before:.4f} in its "
                            "metrics.json: the annotations have changed; pass the earlier --annotations FILE.")
    evaluation.metrics["skipped_image_ids"] = stored.metrics.get("skipped_image_ids", [])
    return evaluation


def write_comparison(path: str, stored: Sequence[Stored], dataset: CocoDataset) -> None:
    """Write the report of two evaluations of `dataset` to the file `path`.

    Raises:
        OSError: the file cannot be written.
        UserError: see `score_again`.
    """
    evaluations = [score_again(one, dataset) for one in stored]
    records = scored_records(dataset, evaluations[0].metrics)
    matched = [match_boxes(evaluation) for evaluation in evaluations]
    first, other = (one.costs(len(records)) for one in matched)
    detectors = list(zip([one.folder for one in stored], evaluations, matched))
    write_page(path, "evaluation.html.j2", "Comparison of two evaluations",
               page_contents(records, dataset, detectors, other - first), comparison=True)


def _read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON file"
        raise UserError(f"cannot read {path} ({reason}); pass the folder of an evaluation.") from error


def _is_result(row):
    return (isinstance(row, dict) and all(isinstance(row.get(key), int) for key in ("image_id", "category_id"))
            and isinstance(row.get("bbox"), list) and len(row["bbox"]) == 4
            and all(type(value) in (int, float) for value in (*row["bbox"], row.get("score"))))
