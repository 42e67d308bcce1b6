"""Seconds of the detector's steps, put together from the parts that train.py and eval.py use."""
import statistics
import time

from src.cpu_kernels.replace import use_kernels
from src.detector import Predictor
from src.evaluation.detections import select_detections
from src.models.faster_rcnn import TrainingForward
from src.train.all_reduce import broadcast_parameters, build_all_reduce
from src.train.optimizer import build_optimizer
from src.train.sampling import SamplingPriorities
from src.train.step import TrainStep, build_scaler


def median_seconds(run, count):
    """Median of `count` calls, after one that does not count."""
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
        network: FasterRCNN; cfg: the configuration; num_classes: K; group: the processes, see src.distributed;
        batch: of `noise_batch`.

    Attributes:
        exchange: see src.train.all_reduce; skipped: how many steps overflowed, and so did without the update.
    """

    def __init__(self, network, cfg, num_classes, group, batch):
        self.batch = batch
        forward = use_kernels(TrainingForward(network, cfg, num_classes), cfg)
        # It starts with a learning rate of 0: every step has the same weights, and none can make them diverge.
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
        # The step only launches the update; a weight can be read once it is done.
        self.smallest.asnumpy()
        self.count += 1
        self.skipped += not applied


class InferenceBatch:
    """Inference on the same batch, up to the detections of each image; args as those of `TrainingStep`."""

    def __init__(self, network, cfg, batch):
        self.predictor = Predictor(network, cfg)
        self.inputs = batch[:2]
        self.limits = cfg.infer.conf_threshold, cfg.infer.nms_threshold, cfg.infer.max_box_num

    def __call__(self):
        for boxes, scores in zip(*self.predictor(*self.inputs)):
            select_detections(boxes, scores, *self.limits)
