"""From the network's boxes and scores to the detections of one image."""
from __future__ import annotations

import cv2
import numpy as np

# Pixels; torchvision's detectors, too, drop boxes that are narrower or lower than this before NMS.
MIN_SIDE = 0.01


def select_detections(boxes: np.ndarray, scores: np.ndarray, conf_threshold: float, nms_threshold: float,
                      max_box_num: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Select the detections of one image among all pairs of a proposal and a class.

    Candidates are the pairs with score > conf_threshold whose box is at least MIN_SIDE pixels wide and high. Non-maximum
    suppression within each class removes a candidate whose IoU with a kept one of higher score is > nms_threshold; of
    equal scores the lower proposal number comes first. The best max_box_num over all classes are kept, or all.

    Args:
        boxes: (R, K, 4) float32, xyxy pixels, one box a proposal and class.
        scores: (R, K) float32, class probabilities without the background; 0 in rows that are no proposals.
        conf_threshold: lowest score, exclusive, 0 to 1.
        nms_threshold: highest IoU of two detections of a class, 0 to 1.
        max_box_num: the most detections of an image, or None.

    Returns:
        boxes (n, 4) float32, scores (n,) float32, labels (n,) int64, by falling score.
    """
    proposals, labels = np.nonzero(scores > conf_threshold)
    boxes, scores = boxes[proposals, labels], scores[proposals, labels]
    # A NaN coordinate fails the comparison, so that such a box is dropped here as well.
    large = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(axis=1))
    order = large[np.argsort(-scores[large], kind="stable")]
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    kept = nms_per_class(boxes, scores, labels, nms_threshold)[:max_box_num]
    return boxes[kept], scores[kept], labels[kept]


def detections_of_image(boxes: np.ndarray, scores: np.ndarray, infer, scale: np.ndarray,
                        original_size: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`select_detections` with the thresholds of the configuration's section `infer`, the boxes in pixels of the original
    image, see `to_original`."""
    boxes, scores, labels = select_detections(boxes, scores, infer.conf_threshold, infer.nms_threshold, infer.max_box_num)
    return to_original(boxes, scale, original_size), scores, labels


def nms_per_class(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression within each class.

    One cv2.dnn.NMSBoxes call a class rather than one NMSBoxesBatched call: the latter compares each box with the kept
    boxes of all classes (40 times slower for 20,000 boxes of 80 classes), and it keeps classes apart by moving them
    along x and y, which mixes them up where a coordinate is negative. OpenCV computes the IoU in float64 and rounds it
    to float32 before it compares.

    Args:
        boxes: (n, 4) float32, xyxy pixels, each with an area.
        scores: (n,) float32, falling.
        labels: (n,) int.
        threshold: a box is removed when its IoU with a kept box before it is > threshold.

    Returns:
        (m,) int64: the kept boxes' indices, rising (so by falling score).
    """
    if not len(boxes):
        return np.zeros(0, np.int64)
    xywh = boxes.astype(np.float64)
    xywh[:, 2:] -= xywh[:, :2]
    by_class = np.argsort(labels, kind="stable")
    kept = []
    for group in np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1):
        if len(group) > 1:
            # Lists: OpenCV reads them several times faster than the rows of an array.
            picked = cv2.dnn.NMSBoxes(xywh[group].tolist(), scores[group].tolist(), 0.0, threshold)
            group = group[np.asarray(picked, np.int64)]
        kept.append(group)
    return np.sort(np.concatenate(kept))


def to_original(boxes: np.ndarray, scale: np.ndarray, original_size: np.ndarray) -> np.ndarray:
    """Boxes in canvas pixels to pixels of the original image, clipped to it.

    Args:
        boxes: (n, 4) float32, xyxy canvas pixels.
        scale: (2,) (sy, sx), canvas pixels per original pixel.
        original_size: (2,) (height, width) of the original image.

    Returns:
        (n, 4) float32, xyxy pixels of the original image.
    """
    scale, size = np.asarray(scale, np.float32), np.asarray(original_size, np.float32)
    return np.clip(boxes / scale[[1, 0, 1, 0]], 0, size[[1, 0, 1, 0]])
