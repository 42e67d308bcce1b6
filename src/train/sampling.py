"""The random numbers of a training step, drawn on the host.

They are a function of (seed, step, row of the batch), so that a resumed run draws what an uninterrupted one would have drawn,
on any device, and several processes and micro-batches draw what one would for their rows of the common batch.
"""
from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from mindspore import Tensor

from src.dataset.batching import SAMPLING


class SamplingPriorities:
    """Draws the sampling priorities of a step, see `src.models.matcher.subsample`.

    At 768x1280 that takes a step's host about 20 ms, so a thread draws those of the next step while this one runs, for as many
    anchors, proposals and boxes. Where there turn out to be others, on another canvas, they are drawn when they are asked for.
    """

    def __init__(self, cfg, rank: int = 0):
        self.cfg = cfg
        self.rank = rank
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sampling")
        self._ahead: dict[int, tuple[tuple, Future]] = {}  # by micro-batch, what is drawn

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
        asked = step, num_anchors, num_proposals, padded_boxes, micro_batch
        drawn, ahead = self._ahead.get(micro_batch, (None, None))
        anchors, rois = ahead.result() if ahead and drawn == asked else self._draw(*asked)
        following = (step + 1, *asked[1:])
        self._ahead[micro_batch] = following, self._thread.submit(self._draw, *following)
        return Tensor.from_numpy(anchors), Tensor.from_numpy(rois)

    def _draw(self, step, num_anchors, num_proposals, padded_boxes, micro_batch):
        first = (self.rank * self.cfg.accumulate_steps + micro_batch) * self.cfg.batch_size
        rngs = [np.random.default_rng([self.cfg.seed, SAMPLING, step, first + row]) for row in range(self.cfg.batch_size)]
        anchors = _permutations(rngs, num_anchors, self.cfg.rpn_head.rpn_label_assignment.use_random)
        head = self.cfg.bbox_head
        num_rois = num_proposals + padded_boxes * head.add_gt_as_proposals
        return anchors, _permutations(rngs, num_rois, head.bbox_assigner.use_random)


def _permutations(rngs, length, random):
    falling = np.arange(length, 0, -1, dtype=np.float32) - 1
    return np.stack([rng.permutation(falling) if random else falling for rng in rngs])
