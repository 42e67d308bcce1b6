"""Which class the detector takes for which: detections matched with ground truth whatever the classes.

The confusion matrix of a score threshold has a row for each annotated class and for the background, and a column for each
detected class and for the background. A detection is in the row of the box that it is matched with, or in the background's; an
annotated box that nothing is matched with is in the background's column. As each detection is matched before those of lower
scores, the threshold does not change the matches of those above it.
"""
from __future__ import annotations

import numpy as np
from pycocotools import mask

from src.evaluation.boxes import Boxes
from src.evaluation.error_analysis import FOREGROUND_IOU, IGNORED
from src.evaluation.matching import match

OWN_CLASS_FIRST = 1e-9  # is added to the IoU with a box of the same class, which decides between equal ones


def match_any_class(ground_truth: Boxes, detections: Boxes, kinds: np.ndarray) -> np.ndarray:
    """Match at an IoU of 0.5, image by image and by falling score, each detection with the free box of highest IoU.

    Crowds are matched with nothing, and neither are detections that are IGNORED for a crowd.

    Args:
        ground_truth: in the order of images.
        detections: in the order of images, within an image by falling score.
        kinds: (n,) int, of the detections, as `src.evaluation.error_analysis.classify` gives them.

    Returns:
        (n,) int, the row of the ground truth, -1 for none.
    """
    places = np.full(len(detections.score), -1)
    counted = np.flatnonzero(kinds != IGNORED)
    boxes = np.flatnonzero(~ground_truth.crowd)
    image_of_row, image_of_box = detections.image[counted], ground_truth.image[boxes]
    for image in np.unique(image_of_row):
        rows = counted[slice(*np.searchsorted(image_of_row, (image, image + 1)))]
        own = boxes[slice(*np.searchsorted(image_of_box, (image, image + 1)))]
        if len(own):
            none = np.zeros(len(own), bool)
            iou = mask.iou(detections.xywh[rows], ground_truth.xywh[own], none)
            same = detections.category[rows, None] == ground_truth.category[own]
            iou = np.where(same & (iou >= FOREGROUND_IOU), iou + OWN_CLASS_FIRST, iou)
            matches = match(iou, none[None], none, np.array([FOREGROUND_IOU]))[0, 0]
            places[rows] = np.where(matches >= 0, own[matches], -1)
    return places
