"""The random numbers of a training step, drawn on the host.

They are a function of (seed, step), so that a resumed run draws what an uninterrupted one would have drawn, on any device.
"""
import numpy as np
from mindspore import Tensor


class Priorities:
    """Draws the sampling priorities of a step, see `src.models.matching.sample`.

    Args:
        cfg: the configuration; num_anchors, num_proposals: of an image.
    """

    def __init__(self, cfg, num_anchors, num_proposals):
        self.seed = cfg.seed
        self.batch_size = cfg.batch_size
        self.num_anchors = num_anchors
        self.random_anchors = cfg.rpn_head.rpn_label_assignment.use_random
        self.random_rois = cfg.bbox_head.bbox_assigner.use_random
        self.add_boxes = cfg.bbox_head.add_gt_as_proposals
        self.num_proposals = num_proposals

    def draw(self, step, padded_boxes):
        """Tensors (B, anchors) and (B, RoI candidates) float32 for step number `step`.

        Args:
            padded_boxes: G, the length of the box lists of the batch.
        """
        rng = np.random.default_rng([self.seed, step])
        num_rois = self.num_proposals + (padded_boxes if self.add_boxes else 0)
        anchors = self._permutations(rng, self.num_anchors, self.random_anchors)
        return anchors, self._permutations(rng, num_rois, self.random_rois)

    def _permutations(self, rng, length, random):
        rows = np.tile(np.arange(length, 0, -1, dtype=np.float32) - 1, (self.batch_size, 1))
        return Tensor(rng.permuted(rows, axis=1) if random else rows)
