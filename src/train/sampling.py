"""The random numbers of a training step, drawn on the host.

They are a function of (seed, step, row of the batch), so that a resumed run draws what an uninterrupted one would have drawn,
on any device, and several processes and micro-batches draw what one would for their rows of the common batch.
"""
import numpy as np
from mindspore import Tensor


class SamplingPriorities:
    """Draws the sampling priorities of a step, see `src.models.matcher.subsample`."""

    def __init__(self, cfg, rank: int = 0):
        self.cfg = cfg
        self.rank = rank

    def draw(self, step: int, num_anchors: int, num_proposals: int, padded_boxes: int,
             micro_batch: int = 0) -> tuple[Tensor, Tensor]:
        """Priorities (B, anchors) and (B, RoI candidates) float32 for a micro-batch of a step.

        Args:
            step: number of the step in the run, from 0.
            num_anchors: of an image.
            num_proposals: of an image.
            padded_boxes: G, the length of the box lists of the batch.
            micro_batch: its number in the step, from 0.
        """
        first = (self.rank * self.cfg.accumulate_steps + micro_batch) * self.cfg.batch_size
        rngs = [np.random.default_rng([self.cfg.seed, step, row]) for row in range(first, first + self.cfg.batch_size)]
        anchors = _permutations(rngs, num_anchors, self.cfg.rpn_head.rpn_label_assignment.use_random)
        head = self.cfg.bbox_head
        num_rois = num_proposals + padded_boxes * head.add_gt_as_proposals
        return anchors, _permutations(rngs, num_rois, head.bbox_assigner.use_random)


def _permutations(rngs, length, random):
    falling = np.arange(length, 0, -1, dtype=np.float32) - 1
    return Tensor(np.stack([rng.permutation(falling) if random else falling for rng in rngs]))
