"""Random numbers of a training step, generated on the host.

They depend only on (seed, step, row of the global batch). A resumed run therefore uses the same numbers as an uninterrupted run,
on any device. Splitting the global batch over several processes or micro-batches does not change the numbers either.
"""
from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from mindspore import Tensor

from src.config import Config
from src.dataset.loader import SAMPLING


class SamplingPriorities:
    """Generates the random sampling priorities of a step, see `src.models.matcher.subsample`.

    At 768x1280 this takes about 20 ms per step on the host, so a thread prepares the next step while the current step runs. If
    the next step has other numbers of anchors, proposals or boxes (another canvas), its priorities are generated on request.
    """

    def __init__(self, cfg: Config, rank: int = 0):
        self.cfg = cfg
        self.rank = rank
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sampling")
        self._ahead: dict[int, tuple[tuple, Future]] = {}  # by micro-batch: arguments, result

    def draw(self, step: int, num_anchors: int, num_proposals: int, padded_boxes: int,
             micro_batch: int = 0) -> tuple[Tensor, Tensor]:
        """Return priorities (B, anchors) and (B, RoI candidates) float32 for a micro-batch of a step, both numbered from 0.

        `padded_boxes` is G, the padded number of boxes per image. The numbers of anchors and proposals are also per image.
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
