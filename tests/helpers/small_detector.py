"""A detector for 64 x 96 pixels with few channels, and a batch of images for it."""
import numpy as np
from mindspore import Tensor

from src.config import Config, with_settings

NUM_CLASSES = 3
CANVAS = (64, 96)
NUM_ANCHORS = 3 * (16 * 24 + 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2)
PROPOSALS, PADDED = 40, 3
# Changes of faster_rcnn_resnet50_fpn_1x_mindspore_models.yml to the graph, with a threshold that suits few proposals.
STEPS = [{"Resize": {"exact_factor": True}}, {"NormalizeImage": {"pad_first": True}}, {"TransposeImage": {}},
         {"LabelsPadding": {}}]
OLDER_RECIPE = {
    "data.train_transforms.item_transforms": STEPS, "data.eval_transforms.item_transforms": STEPS,
    **{f"rpn_head.{use}_proposal.{name}": value for use in ("train", "test")
       for name, value in (("drop_small_first", True), ("joint_nms_thresh", 0.4), ("clip_to", "canvas"))},
    "bbox_head.clip_first": False, "bbox_head.roi_extractor.aligned": False}


def small_config(**backbone):
    """Return the configuration; backbone: additional values of that section."""
    proposals = {"pre_nms_top_n": PROPOSALS, "post_nms_top_n": PROPOSALS}
    settings = {
        "mix": False, "ms_loss_scaler": "none", "data.target_size": list(CANVAS), "rpn_head.feat_channel": 16,
        "rpn_head.anchor_generator.anchor_sizes": [[8], [16], [32], [64], [80]], "rpn_head.train_proposal": proposals,
        "rpn_head.test_proposal": proposals, "bbox_head.head": {"in_channel": 16, "out_channel": 32},
        "bbox_head.bbox_assigner.rois_per_batch": 16, "backbone.name": "det_resnet18", "backbone.pretrained": False,
        "backbone.out_channels": 16, **{f"backbone.{name}": value for name, value in backbone.items()}}
    return with_settings(Config(), settings)


def small_batch(num_anchors=NUM_ANCHORS, num_proposals=PROPOSALS):
    """Return arguments of TrainingForward; InferenceForward takes the first two. There are two images, the second 40 x 70
    pixels and without boxes, and the sampling priorities."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    image[1, 40:] = 0
    image[1, :, 70:] = 0
    boxes = np.float32([[[10, 12, 40, 50], [50, 20, 90, 44], [0, 0, 0, 0]], [[0, 0, 0, 0]] * 3])
    mask = np.array([[True, True, False], [False, False, False]])
    priorities = [rng.permuted(np.tile(np.arange(n, dtype=np.float32), (2, 1)), axis=1)
                  for n in (num_anchors, num_proposals + PADDED)]
    columns = image, np.float32([[64, 96], [40, 70]]), boxes, np.int32([[1, 2, 0], [0, 0, 0]]), mask, *priorities
    return [Tensor(column) for column in columns]
