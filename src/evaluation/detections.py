"""Turns the network's boxes and scores into the detections of one image."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

import cv2
import numpy as np

from src.config import schema

# In pixels. Narrower or lower boxes are dropped before NMS, as in torchvision's detectors.
MIN_SIDE = 0.01


def select_detections(boxes: np.ndarray, scores: np.ndarray, conf_threshold: float, nms_threshold: float,
                      max_box_num: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Select the detections of one image from all pairs of a proposal and a class.

    Candidates have score > conf_threshold and a box that is at least MIN_SIDE pixels wide and high. Per-class NMS removes a
    candidate if its IoU with a kept candidate of higher score is > nms_threshold. If scores are equal, the lower proposal index
    comes first. The best max_box_num detections over all classes are kept, or all of them if it is None.

    Args:
        boxes: (R, K, 4) float32, xyxy in pixels, one box per proposal and class.
        scores: (R, K) float32, class probabilities without the background; 0 in padding rows.
        conf_threshold: confidence threshold, exclusive, 0 to 1.
        nms_threshold: IoU threshold of NMS, 0 to 1.
        max_box_num: maximum number of detections per image, or None.

    Returns:
        boxes (n, 4) float32, scores (n,) float32 and labels (n,) int64, by descending score.
    """
    proposals, labels = np.nonzero(scores > conf_threshold)
    boxes, scores = boxes[proposals, labels], scores[proposals, labels]
    # A comparison with NaN is false, so boxes with a NaN coordinate are dropped too.
    large = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(axis=1))
    order = large[np.argsort(-scores[large], kind="stable")]
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    kept = nms_per_class(boxes, scores, labels, nms_threshold)[:max_box_num]
    return boxes[kept], scores[kept], labels[kept]


def detections_of_image(boxes: np.ndarray, scores: np.ndarray, infer: schema.Infer, scale: np.ndarray,
                        original_size: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run `select_detections` with the thresholds of the configuration section `infer`, and convert the boxes from canvas pixels
    to pixels of the original image, clipped to it.

    Args:
        boxes, scores: see `select_detections`.
        infer: the configuration section.
        scale: (2,) (sy, sx), canvas pixels per original pixel.
        original_size: (2,) (height, width) of the original image.
    """
    boxes, scores, labels = select_detections(boxes, scores, infer.conf_threshold, infer.nms_threshold, infer.max_box_num)
    scale, size = np.asarray(scale, np.float32), np.asarray(original_size, np.float32)
    return np.clip(boxes / scale[[1, 0, 1, 0]], 0, size[[1, 0, 1, 0]]), scores, labels


def nms_per_class(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy NMS within each class.

    This calls cv2.dnn.NMSBoxes once per class. A single call of NMSBoxesBatched would compare each box with the kept boxes of
    all classes, which is 40x slower for 20,000 boxes of 80 classes. It also separates classes by shifting them along x and y,
    which mixes them up if coordinates are negative. OpenCV computes the IoU in float64 and rounds it to float32 before the
    comparison.

    Args:
        boxes: (n, 4) float32, xyxy in pixels, with areas above 0.
        scores: (n,) float32, descending.
        labels: (n,) int.
        threshold: a box is removed if its IoU with an earlier kept box is > threshold.

    Returns:
        (m,) int64, indices of the kept boxes, ascending (so by descending score).
    """
    if not len(boxes):
        return np.zeros(0, np.int64)
    xywh = boxes.astype(np.float64)
    xywh[:, 2:] -= xywh[:, :2]
    by_class = np.argsort(labels, kind="stable")
    kept = []
    for group in np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1):
        if len(group) > 1:
            # OpenCV reads lists several times faster than rows of an array.
            picked = cv2.dnn.NMSBoxes(xywh[group].tolist(), scores[group].tolist(), 0.0, threshold)
            group = group[np.asarray(picked, np.int64)]
        kept.append(group)
    return np.sort(np.concatenate(kept))


def overlapped(function: Callable, items: Iterable[tuple]) -> Iterator[Any]:
    """Yield function(*item) for each item, in order. The function runs in a thread while `items` computes the next item.

    Starting the network one batch ahead is not enough: MindSpore's compiled graphs return when the device has finished.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="outputs") as thread:
        previous = None
        for item in items:
            if previous:
                yield previous.result()
            previous = thread.submit(function, *item)
        if previous:
            yield previous.result()
