"""From one image of any size to its detections."""
import numpy as np
from mindspore import Tensor

from src.dataset.transforms import apply
from src.evaluation.detections import select_detections, to_original


def detect(predictor, cfg, image):
    """Find the objects on a image, as an evaluation with a batch of one does.

    Args:
        predictor: src.detector.Predictor; cfg: the configuration, of which the canvas, the transforms for evaluation and
        infer.* are read; image: (h, w, 3) uint8 RGB.

    Returns:
        boxes (n, 4) float32 xyxy in pixels of the image, scores (n,) float32, labels (n,) int64, by falling score, and
        whether all that the network gave is finite.
    """
    canvas = np.empty((*cfg.data.target_size, 3), np.uint8)
    nothing_random, no_boxes = None, np.zeros((0, 4), np.float32)
    valid_size, _, scale = apply(cfg.data.eval_transforms.item_transforms, image, no_boxes, nothing_random, canvas)
    boxes, scores = predictor(Tensor(canvas[None]), Tensor(valid_size[None]))
    infer = cfg.infer
    found, values, labels = select_detections(boxes[0], scores[0], infer.conf_threshold, infer.nms_threshold, infer.max_box_num)
    return to_original(found, scale, image.shape[:2]), values, labels, bool(np.isfinite(scores[0]).all())
