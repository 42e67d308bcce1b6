"""From the network's boxes and scores to the detections of one image."""
import cv2
import numpy as np

# A box narrower or lower than this (pixels) is none; torchvision's detectors drop the same ones before their NMS.
MIN_SIDE = 0.01


def select_detections(boxes, scores, conf_threshold, nms_threshold, max_box_num):
    """Choose the detections of one image, every class of every proposal being a candidate of its own.

    Candidates are the (proposal, class) pairs with score > conf_threshold whose box is at least MIN_SIDE pixels wide
    and high. Within a class, a candidate goes when its IoU with a kept one of higher score is > nms_threshold; of equal
    scores the lower proposal number comes first. The best max_box_num over all classes stay.

    Args:
        boxes: (R, K, 4) float32, xyxy pixels, one box a proposal and class.
        scores: (R, K) float32, class probabilities without the background; 0 in rows that are no proposals.
        conf_threshold, nms_threshold: numbers from 0 to 1.
        max_box_num: the most detections that an image may have.

    Returns:
        boxes (n, 4) float32, scores (n,) float32, labels (n,) int64, by falling score, n <= max_box_num.
    """
    proposals, labels = np.nonzero(scores > conf_threshold)
    boxes, scores = boxes[proposals, labels], scores[proposals, labels]
    # A NaN coordinate fails the comparison, so such a box goes here as well.
    large = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(axis=1))
    order = large[np.argsort(-scores[large], kind="stable")]
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    kept = nms_per_class(boxes, scores, labels, nms_threshold)[:max_box_num]
    return boxes[kept], scores[kept], labels[kept]


def nms_per_class(boxes, scores, labels, threshold):
    """Greedy non-maximum suppression within each class.

    One cv2.dnn.NMSBoxes call a class rather than one NMSBoxesBatched call: the latter compares each box with the kept
    boxes of all classes (40 times slower for 20,000 boxes of 80 classes), and it keeps classes apart by moving them
    along x and y, which mixes them up where a coordinate is negative. OpenCV computes the IoU in float64 and rounds it
    to float32 before it compares.

    Args:
        boxes: (n, 4) float32, xyxy pixels, each with an area. scores: (n,) float32, falling. labels: (n,) int.
        threshold: a box goes when its IoU with a kept box before it is > threshold.

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


def to_original(boxes, scale, original_size):
    """Canvas pixels to the original image's, clipped to the image.

    Args:
        boxes: (n, 4) float32, xyxy canvas pixels.
        scale: (2,) (sy, sx), canvas pixels per original pixel.
        original_size: (2,) (height, width) of the original image.

    Returns:
        (n, 4) float32, xyxy pixels of the original image.
    """
    scale, size = np.asarray(scale, np.float32), np.asarray(original_size, np.float32)
    return np.clip(boxes / scale[[1, 0, 1, 0]], 0, size[[1, 0, 1, 0]])
