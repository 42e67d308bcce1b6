"""The report that compares two evaluations of the same images and their runs: settings, curves, numbers and changed images."""
from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from src.config.base import differing_settings, flat_settings
from src.dataset.annotations import CocoDataset, load_coco
from src.dataset.splits import with_classes
from src.errors import UserError, short_repr
from src.evaluation.coco import KEYS, Evaluation, score, unique_names, values_without
from src.report.evaluation import match_boxes, page_contents, scored_records
from src.report.page import known, run_contents, write_page
from src.run.modelarts import EARLIER
from src.visualization.charts import Curves, read_run

logger = logging.getLogger("faster_rcnn")

TOLERANCE = 1e-6  # for recomputed metrics
GROUPS = 20  # of images, for the uncertainty of differences


class Stored(NamedTuple):
    """The stored results of an evaluation."""
    folder: str
    metrics: dict
    results: list[dict]
    run: str        # folder of the training run, or of the evaluation if the run is not known
    settings: dict  # {dotted key: value} of the run's config.yml, empty if it is not known


def read_evaluation(path: str) -> Stored:
    """Read metrics.json and bbox_results.json of an evaluation, and config.yml of its run, if there is one.

    `path` is the folder of an evaluation, or of a run, whose newest evaluation is read.

    Raises:
        UserError: the files are missing or have other content.
    """
    found, folder = sorted(Path(path, "eval").rglob("metrics.json"), key=os.path.getmtime), path
    if found and not os.path.isfile(os.path.join(path, "metrics.json")):
        folder = str(found[-1].parent)
        logger.info("%s: of %d evaluations, %s is the newest", path, len(found), folder)
    metrics, results = (_read(os.path.join(folder, name)) for name in ("metrics.json", "bbox_results.json"))
    if not (isinstance(metrics, dict) and isinstance(metrics.get("per_class"), dict)
            and all(isinstance(metrics.get(key), (int, float)) for key in (*KEYS, "images"))):
        raise UserError(f"{folder} has a metrics.json that eval.py has not written; pass the folder of an evaluation.")
    combined = os.path.join(folder, "annotations.json")
    if os.path.isfile(combined) and not os.path.isfile(metrics.get("annotations", "")):  # of several files, see write_results
        metrics["annotations"] = combined
    if not (isinstance(results, list) and all(map(_is_result, results))):
        raise UserError(f"{folder} has a bbox_results.json that is not in COCO's format; pass the folder of an evaluation.")
    # The run is that of the evaluated checkpoint. A moved run, or one without such an entry, is found from its folder eval.
    parents, checkpoint = list(Path(os.path.abspath(folder), "metrics.json").parents)[:4], metrics.get("checkpoint")
    if checkpoint and not any(parent.parent.name == EARLIER for parent in parents):
        parents = [Path(str(checkpoint)).absolute().parent.parent]
    run = next((str(parent) for parent in parents if Path(parent, "metrics.jsonl").is_file()), folder)
    path = os.path.join(run, "config.yml")
    if not os.path.isfile(path):
        logger.info("%s does not exist, so settings are not compared", path)
    settings = _read(path, lambda file: flat_settings(yaml.safe_load(file))) if os.path.isfile(path) else {}
    return Stored(folder, metrics, results, run, settings)


def open_dataset(stored: Sequence[Stored], annotations: str, image_dir: str) -> tuple[CocoDataset, list[Stored]]:
    """Load the data set of two evaluations from the given paths, or else from the paths in metrics.json.

    Returns:
        The data set with the classes that both evaluations have, matched by name, and the evaluations with the detections of
        these classes and the data set's category ids.

    Raises:
        UserError: the evaluations have different images or no common class; the data set's paths are unknown or cannot be read.
    """
    first, other = (one.metrics for one in stored)
    for what, a, b in (("images", *(metrics["images"] for metrics in (first, other))),
                       ("skipped images", *(sorted(metrics.get("skipped_image_ids", ())) for metrics in (first, other)))):
        if a != b:
            raise UserError(f"the evaluations have different {what}: {stored[0].folder} has {short_repr(a)}, but "
                            f"{stored[1].folder} has {short_repr(b)}; compare evaluations of the same images.")
    load, datasets = functools.cache(load_coco), []
    for one in stored:
        paths = annotations or one.metrics.get("annotations", ""), image_dir or one.metrics.get("image_folder", "")
        if not all(paths):
            raise UserError(f"{os.path.join(one.folder, 'metrics.json')} does not say where its data set is; pass "
                            "--annotations FILE and --images FOLDER.")
        dataset, names = load(*paths), list(one.metrics["per_class"])
        if names != unique_names(dataset.names, dataset.category_ids):
            dataset = with_classes(dataset, names, may_lack=True)
        datasets.append(dataset)
    names = [name for name in first["per_class"] if name in other["per_class"]]
    if not names:
        raise UserError(f"{stored[0].folder} and {stored[1].folder} have no class in common, so they cannot be compared.")
    dataset = with_classes(datasets[1], names, may_lack=True) if names != list(other["per_class"]) else datasets[1]
    common, same = dict(zip(names, dataset.category_ids)), []
    for one, own in zip(stored, datasets):
        if left_out := [name for name in one.metrics["per_class"] if name not in common]:
            logger.info("%s: classes that only this evaluation has are left out: %s", one.folder, ", ".join(left_out))
        ids = {old: common[name] for old, name in zip(own.category_ids, one.metrics["per_class"]) if name in common}
        same.append(one._replace(results=[{**row, "category_id": ids[row["category_id"]]} for row in one.results
                                          if row["category_id"] in ids]))
    return dataset, same


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
    again, before, keys = evaluation.metrics, stored.metrics, list(KEYS)
    if len(again["per_class"]) < len(before["per_class"]):  # the means differ
        again, before, keys = again["per_class"], before["per_class"], list(again["per_class"])
    for key in keys:
        if abs(again[key] - before[key]) > TOLERANCE:
            raise UserError(f"{key} of {stored.folder} is {again[key]:.4f} with {dataset.annotation_path}, but {before[key]:.4f} "
                            "in its metrics.json: the annotations have changed; pass the earlier --annotations FILE.")
    evaluation.metrics["skipped_image_ids"] = stored.metrics.get("skipped_image_ids", [])
    return evaluation


def uncertainty(evaluations: Sequence[Evaluation], num_images: int) -> np.ndarray:
    """Return two standard errors of each difference between two evaluations, in the order of `values_without`; NaN if unknown.

    The method is the delete-a-group jackknife (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11): the
    images are split at random into G = min(GROUPS, number of images) groups, and the metrics are computed without each of them.
    The variance of a difference is (G - 1) / G times the sum of squared deviations from the mean. Trainings with other seeds make
    other errors on each image, so their differences are usually below two standard errors. This is a lower limit: only several
    trainings show how much a seed changes a detector on all images alike.
    """
    count = min(GROUPS, num_images)
    groups = np.random.default_rng(0).permutation(num_images) % count
    first, other = (values_without(evaluation, groups) for evaluation in evaluations)
    return 2 * np.sqrt((count - 1) * np.var(other - first, axis=0))


def write_comparison(path: str, stored: Sequence[Stored], dataset: CocoDataset) -> str:
    """Write the report of two evaluations of `dataset` to the file `path`, and return a sentence with AP and its difference.

    Raises:
        OSError: the file cannot be written.
        UserError: see `score_again`.
    """
    evaluations = [score_again(one, dataset) for one in stored]
    records = scored_records(dataset, evaluations[0].metrics)
    matched = [match_boxes(evaluation) for evaluation in evaluations]
    first, other = (one[0].costs(len(records), one[0].threshold) for one in matched)
    detectors = list(zip([one.folder for one in stored], evaluations, matched))
    contents = page_contents(records, dataset, detectors, other - first)
    limits = list(map(known, uncertainty(evaluations, len(records)).tolist()))
    classes = len(KEYS) + len(dataset.names)
    contents["limits"] = {"metrics": dict(zip(KEYS, limits)), "ap": [*limits[len(KEYS):classes], limits[0]],
                          "ap50": [*limits[classes:], limits[1]]}
    one, two = (each.settings for each in stored)
    contents["settings"] = [[name, *("–" if value is None else json.dumps(value) for value in values)]
                            for name, *values in differing_settings(one, two)] if one and two else None
    contents["runs"] = [run_contents(Curves(lines), rows) for lines, rows in (read_run(each.run) for each in stored)]
    write_page(path, "evaluation.html.j2", "Comparison of two evaluations", contents, comparison=True)
    a, b = (evaluation.metrics["AP"] for evaluation in evaluations)
    unclear = a != b and (limits[0] is None or abs(b - a) < limits[0])
    return f"AP {a:.4f} and {b:.4f}, difference {b - a:+.4f}{' (unclear)' if unclear else ''}"


def _read(path, parse=json.load):
    try:
        with open(path, encoding="utf-8") as file:
            return parse(file)
    except (OSError, ValueError, RecursionError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or f"it is no {'JSON' if parse is json.load else 'YAML'} file"
        raise UserError(f"cannot read {path} ({reason}); pass the folder of an evaluation or of a run.") from error


def _is_result(row):
    return (isinstance(row, dict) and all(isinstance(row.get(key), int) for key in ("image_id", "category_id"))
            and isinstance(row.get("bbox"), list) and len(row["bbox"]) == 4
            and all(type(value) in (int, float) for value in (*row["bbox"], row.get("score"))))
