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
from src.report.contents import detector_contents, gallery_contents, most_expensive, scored_records, truth_contents
from src.report.matched import match_boxes
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
        raise UserError(f"{os.path.join(folder, 'metrics.json')} is not of an evaluation; give the folder that eval.py wrote.")
    if not (isinstance(results, list) and all(map(_is_result, results))):
        raise UserError(f"{os.path.join(folder, 'bbox_results.json')} is not in COCO's format of results; give the folder that "
                        "eval.py wrote.")
    return Stored(folder, metrics, results)


def open_dataset(stored: Sequence[Stored], annotations: str, images: str) -> CocoDataset:
    """Load the data set of two evaluations from the given paths, or else from the paths in metrics.json.

    Raises:
        UserError: the evaluations have different classes or images, or the data set's paths are unknown or cannot be read.
    """
    first, other = (one.metrics for one in stored)
    if list(first["per_class"]) != list(other["per_class"]):
        raise UserError(f"the evaluations have other classes: {stored[0].folder} has {short_repr(list(first['per_class']))}, but "
                        f"{stored[1].folder} has {short_repr(list(other['per_class']))}.")
    counts = [(metrics["images"], sorted(metrics.get("skipped_image_ids", ()))) for metrics in (first, other)]
    if counts[0] != counts[1]:
        raise UserError(f"the evaluations have other images: {stored[0].folder} has {counts[0][0]} and left out "
                        f"{short_repr(counts[0][1])}, but {stored[1].folder} has {counts[1][0]} and left out "
                        f"{short_repr(counts[1][1])}.")
    annotations, images = annotations or other.get("annotations", ""), images or other.get("image_folder", "")
    if not (annotations and images):
        raise UserError(f"{os.path.join(stored[1].folder, 'metrics.json')} does not say where its data set is; give "
                        "--annotations FILE and --images FOLDER.")
    dataset, names = load_coco(annotations, images), list(first["per_class"])
    return dataset if names == unique_names(dataset.names, dataset.category_ids) else with_classes(dataset, names, may_lack=True)


def score_again(stored: Stored, dataset: CocoDataset) -> Evaluation:
    """Compute the evaluation of stored detections again.

    Raises:
        UserError: the detections or metrics belong to another data set.
    """
    ids = [record.image_id for record in scored_records(dataset, stored.metrics)]
    unknown = {row["image_id"] for row in stored.results}.difference(ids)
    if unknown or len(ids) != stored.metrics["images"]:
        raise UserError(f"{stored.folder} is an evaluation of other images than those of {dataset.annotation_path}; give "
                        "--annotations FILE with its own.")
    evaluation = score(dataset.coco_json, stored.results, ids, dataset.names, dataset.category_ids)
    for key in KEYS:
        again, before = evaluation.metrics[key], stored.metrics[key]
        if abs(again - before) > TOLERANCE:
            raise UserError(f"with {dataset.annotation_path} the {key} of {stored.folder} is {again:.4f}, but its metrics.json "
                            f"says {before:.4f}: the annotations have changed; give --annotations FILE with those of then.")
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
    truth, found = matched[0].ground_truth, [boxes.detections for boxes in matched]
    contents = {"names": evaluations[0].class_names, "images": len(records), "annotations": dataset.annotation_path,
                "truth": truth_contents(truth, len(records)),
                "detectors": [detector_contents(one.folder, evaluation, boxes, len(records))
                              for one, evaluation, boxes in zip(stored, evaluations, matched)],
                "gallery": gallery_contents(records, most_expensive(other - first), truth, found)}
    write_page(path, "comparison.html.j2", "Comparison of two evaluations", contents)


def _read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); give a folder that eval.py wrote.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON file ({type(error).__name__}); evaluate again.") from error


def _is_result(row):
    return (isinstance(row, dict) and all(isinstance(row.get(key), int) for key in ("image_id", "category_id"))
            and isinstance(row.get("bbox"), list) and len(row["bbox"]) == 4
            and all(type(value) in (int, float) for value in (*row["bbox"], row.get("score"))))
