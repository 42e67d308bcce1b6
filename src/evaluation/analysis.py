"""What eval.py tells beyond COCO's numbers: precision-recall curves and the kinds of errors, as images and as numbers."""
import logging
import os

import numpy as np
from pycocotools.cocoeval import Params

from src.evaluation.coco import boxes_of, class_names
from src.evaluation.error_analysis import error_breakdown
from src.evaluation.matching import precision_and_recall
from src.files import make_folder
from src.visualization.error_chart import draw_errors
from src.visualization.precision_recall import draw_precision_recall

logger = logging.getLogger("faster_rcnn")

CURVE_IOU = (0.5, 0.75)


def write_analysis(folder, dataset, metrics, results):
    """Draw <folder>/precision_recall.png and <folder>/errors.png, and count the kinds of errors.

    A image that cannot be written is reported in the log.

    Args:
        folder: made where missing; dataset: the CocoDataset that was evaluated; metrics, results: what `evaluate` gave.

    Returns:
        dict: see src.evaluation.error_analysis.

    Raises:
        UserError: the folder cannot be made.
    """
    skipped = set(metrics["skipped_image_ids"])
    image_ids = [record.image_id for record in dataset.records if record.image_id not in skipped]
    truth, found, _ = boxes_of(dataset.coco_json, results, image_ids, dataset.category_ids)
    names = [name for _, name in sorted(zip(dataset.category_ids, class_names(dataset.names, dataset.category_ids)))]
    errors = error_breakdown(truth, found, names)
    recalls, precision = precision_curves(truth, found, len(names))
    make_folder(folder)
    _draw(os.path.join(folder, "precision_recall.png"), draw_precision_recall, recalls, precision, names)
    _draw(os.path.join(folder, "errors.png"), draw_errors, errors)
    return errors


def precision_curves(truth, found, categories):
    """COCO's precision, at an IoU of 0.5 and of 0.75, of boxes of any area and the 100 best detections of an image and class.

    Args:
        truth, found: src.evaluation.matching.Boxes; categories: how many there are (K).

    Returns:
        recalls (R,), precision (2, R, K), -1 for a class without ground truth.
    """
    params = Params(iouType="bbox")
    params.iouThrs = np.array(CURVE_IOU)
    params.areaRng, params.maxDets = params.areaRng[:1], params.maxDets[-1:]
    precision, _ = precision_and_recall(truth, found, categories, params)
    return params.recThrs, precision[..., 0, 0]


def _draw(path, draw, *content):
    try:
        draw(path, *content)
    except (ImportError, OSError) as error:
        logger.error("%s could not be drawn (%s)", path, error)
