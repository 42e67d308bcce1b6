"""Measure the seconds of the detector's steps, built from the parts that train.py and eval.py use."""
import itertools
import statistics
import time

from src.evaluation.detections import select_detections
from src.train.parallel import broadcast_parameters
from src.train.step import TrainStep


def median_seconds(run, count):
    """Return the median seconds of `count` calls, after one warm-up call."""
    run()
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


class RepeatedInference:
    """Runs inference on the `batches` in turn, each up to its detections."""

    def __init__(self, predictor, cfg, batches):
        self.predictor, self.infer, self.batches = predictor, cfg.infer, itertools.cycle(batches)

    def __call__(self):
        """Return a list of (boxes, scores, labels), one per image, see `select_detections`."""
        batch = next(self.batches)
        return [select_detections(boxes, scores, self.infer.conf_threshold, self.infer.nms_threshold, self.infer.max_box_num)
                for boxes, scores in zip(*self.predictor(batch.image, batch.valid_size))]


class RepeatedTrainStep:
    """Runs training steps with the `batches` in turn as micro-batches. `count` is the number of steps so far, `skipped` the
    number of steps without update because of overflow."""

    def __init__(self, network, cfg, num_classes, group, batches):
        self.batches, self.accumulate_steps = itertools.cycle(batches), cfg.accumulate_steps
        self.step = TrainStep(network, cfg, num_classes, group)
        self.all_reduce = self.step.all_reduce
        broadcast_parameters(group, self.step.parameters())
        self.smallest = min(self.step.optimizer.parameters, key=lambda parameter: parameter.size)
        self.count = self.skipped = 0

    def __call__(self):
        """Run one step, including the update."""
        # With learning rate 0, all steps have the same weights and training cannot diverge.
        _, applied = self.step(list(itertools.islice(self.batches, self.accumulate_steps)), 0.0, self.count)
        # The step only launches the update. Reading a weight waits for its end.
        self.smallest.asnumpy()
        self.count += 1
        self.skipped += not applied
