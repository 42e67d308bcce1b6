"""Class confusions: detections are matched with ground truth of any class.

The confusion matrix at a score threshold has one row per annotated class and one for the background, and one column per
detected class and one for the background. A detection is in the row of its matched box, or in the background row if it has
none. An annotated box without a match is in the background column. Detections are matched in descending order of score, so the
threshold does not change the matches of the detections above it.
"""
from __future__ import annotations

import numpy as np
from pycocotools import mask

from src.evaluation.boxes import Boxes
from src.evaluation.error_analysis import FOREGROUND_IOU, IGNORED
from src.evaluation.matching import match

OWN_CLASS_FIRST = 1e-9  # added to the IoU with a box of the same class, which breaks ties


def match_any_class(ground_truth: Boxes, detections: Boxes, kinds: np.ndarray) -> np.ndarray:
    """Match each detection, by descending score, with the unmatched box of its image with the highest IoU of at least 0.5.

    Crowd boxes are never matched. Detections that are IGNORED because of a crowd box are not matched either.

    Args:
        ground_truth: boxes sorted by image.
        detections: sorted by image, then by descending score.
        kinds: (n,) int, kinds of the detections from `src.evaluation.error_analysis.classify`.

    Returns:
        (n,) int, the matched row of the ground truth, or -1.
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
