"""The analysis that eval.py adds to the COCO metrics: precision-recall curves and kinds of errors, as images and numbers."""
from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import numpy as np
from pycocotools.cocoeval import Params

from src.evaluation.coco import Evaluation
from src.evaluation.error_analysis import error_breakdown
from src.run.files import make_folder
from src.visualization.error_chart import draw_errors
from src.visualization.font import Font, fonts_of_charts
from src.visualization.precision_recall import draw_precision_recall

logger = logging.getLogger("faster_rcnn")

CURVE_IOU = (0.5, 0.75)


def write_analysis(folder: str, evaluation: Evaluation, fonts: Sequence[Font] = ()) -> dict:
    """Draw <folder>/precision_recall.png and <folder>/errors.png, and count the kinds of errors.

    The folder is created if it does not exist. An image that cannot be written is logged as an error. `fonts` are needed for
    class names with non-ASCII characters.

    Returns:
        the result of `error_breakdown`.

    Raises:
        UserError: the folder cannot be created.
    """
    errors = error_breakdown(evaluation.ground_truth, evaluation.detections, evaluation.class_names)
    recalls, precision = precision_curves(evaluation.precision)
    make_folder(folder)
    _draw(os.path.join(folder, "precision_recall.png"), fonts, draw_precision_recall, recalls, precision, evaluation.class_names)
    _draw(os.path.join(folder, "errors.png"), fonts, draw_errors, errors)
    return errors


def precision_curves(precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return precision-recall curves at the IoU thresholds CURVE_IOU, for all areas and up to 100 detections per image and class.

    Args:
        precision: (T, R, K, A, M), see `Evaluation`.

    Returns:
        recalls (R,) and precision (2, R, K), which is -1 for classes without ground truth.
    """
    params = Params(iouType="bbox")
    thresholds = [int(np.abs(params.iouThrs - iou).argmin()) for iou in CURVE_IOU]
    return params.recThrs, precision[thresholds, :, :, 0, -1]


def _draw(path, fonts, draw, *content):
    try:
        with fonts_of_charts(fonts):
            draw(path, *content)
    except (ImportError, OSError) as error:
        logger.error("%s could not be drawn (%s)", path, error)
