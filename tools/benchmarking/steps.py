"""Timing of training steps and inference, built from the same parts as train.py and eval.py."""
from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from mindspore import Tensor

from src.cpu_kernels.replace import use_kernels
from src.detector import Predictor
from src.evaluation.detections import select_detections
from src.models.faster_rcnn import FasterRCNN, TrainingForward
from src.train.all_reduce import broadcast_parameters, build_all_reduce
from src.train.optimizer import build_optimizer
from src.train.sampling import SamplingPriorities
from src.train.step import TrainStep, build_scaler


def median_seconds(run: Callable[[], None], count: int) -> float:
    """Median of `count` calls, after one for warming up."""
    run()
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


class TrainingStep:
    """Training steps on the same batch.

    Args:
        network: the detector.
        cfg: the configuration.
        num_classes: K.
        group: the process group, see src.distributed.
        batch: of `noise_batch`.

    Attributes:
        all_reduce: see src.train.all_reduce.
        count: of steps.
        skipped: number of steps that overflowed, and made no update.
    """

    def __init__(self, network: FasterRCNN, cfg, num_classes: int, group, batch: tuple[Tensor, ...]):
        self.batch = batch
        forward = use_kernels(TrainingForward(network, cfg, num_classes), cfg)
        # Its initial learning rate is 0: every step has the same weights, and none can diverge.
        optimizer = build_optimizer(cfg.optimizer, network.trainable_params())
        broadcast_parameters(group, [*network.get_parameters(), *optimizer.moments])
        self.all_reduce = build_all_reduce(group, cfg.device_target, optimizer.parameters)
        self.step = TrainStep(forward, optimizer, build_scaler(cfg), cfg.clip_grads, self.all_reduce)
        self.priorities = SamplingPriorities(cfg, forward.num_anchors, forward.num_proposals, group.rank)
        self.smallest = min(optimizer.parameters, key=lambda parameter: parameter.size)
        self.count = self.skipped = 0

    def __call__(self):
        """Run one step to the end of its update."""
        draws = self.priorities.draw(self.count, padded_boxes=self.batch[2].shape[1])
        _, applied = self.step(*self.batch, *draws)
        # The update is launched asynchronously; reading a weight waits for it.
        self.smallest.asnumpy()
        self.count += 1
        self.skipped += not applied


class InferenceBatch:
    """Inference on the same batch, up to the detections of each image; arguments as of `TrainingStep`."""

    def __init__(self, network: FasterRCNN, cfg, batch: tuple[Tensor, ...]):
        self.predictor = Predictor(network, cfg)
        self.inputs = batch[:2]
        self.limits = cfg.infer.conf_threshold, cfg.infer.nms_threshold, cfg.infer.max_box_num

    def __call__(self):
        for boxes, scores in zip(*self.predictor(*self.inputs)):
            select_detections(boxes, scores, *self.limits)
