"""The report of an evaluation, which links its numbers to the images behind them."""
from __future__ import annotations

import logging
import os

from src.dataset.annotations import CocoDataset
from src.evaluation.coco import Evaluation
from src.report.contents import detector_contents, gallery_contents, most_expensive, scored_records, truth_contents
from src.report.matched import match_boxes
from src.report.page import write_page
from src.run.files import make_folder, writing_into

logger = logging.getLogger("faster_rcnn")

NAME = "report.html"


def write_evaluation_report(folder: str, evaluation: Evaluation, dataset: CocoDataset, label: str = "") -> None:
    """Write <folder>/report.html, and create the folder if it does not exist.

    Unreadable images are listed without a picture.

    Args:
        folder: folder of the evaluation.
        evaluation: evaluation of `dataset`, with the metrics of `src.evaluation.evaluate.evaluate`.
        dataset: the data set whose images are shown.
        label: path or name of the evaluated model, shown in the report.

    Raises:
        UserError: the file cannot be written, for example because the disk is full.
    """
    records = scored_records(dataset, evaluation.metrics)
    matched = match_boxes(evaluation)
    chosen = most_expensive(matched.costs(len(records)))
    contents = {"names": evaluation.class_names, "images": len(records), "annotations": dataset.annotation_path,
                "skipped": len(dataset.records) - len(records),
                "truth": truth_contents(matched.ground_truth, len(records)),
                "detectors": [detector_contents(label, evaluation, matched, len(records))],
                "gallery": gallery_contents(records, chosen, matched.ground_truth, [matched.detections])}
    path = os.path.join(make_folder(folder), NAME)
    with writing_into(folder, "the report"):
        write_page(path, "evaluation.html.j2", f"Evaluation of {os.path.basename(label)}" if label else "Evaluation", contents)
    logger.info("the report is %s", path)
