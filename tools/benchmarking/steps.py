"""Seconds of the detector's steps, put together from the parts that train.py and eval.py use."""
import statistics
import time

from src.train.all_reduce import broadcast_parameters
from src.train.step import TrainStep


def median_seconds(run, count):
    """Median of `count` calls, after one that does not count."""
    run()
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


class RepeatedTrainStep:
    """Training steps whose micro-batches are all the same batch; of the `count` so far, `skipped` overflowed and so went without
    the update."""

    def __init__(self, network, cfg, num_classes, group, batch):
        self.micro_batches = [batch] * cfg.accumulate_steps
        self.step = TrainStep(network, cfg, num_classes, group)
        self.all_reduce = self.step.all_reduce
        broadcast_parameters(group, self.step.parameters())
        self.smallest = min(self.step.optimizer.parameters, key=lambda parameter: parameter.size)
        self.count = self.skipped = 0

    def __call__(self):
        """Run one step to the end of its update."""
        # With a learning rate of 0 every step has the same weights, and none can make them diverge.
        _, applied = self.step(self.micro_batches, 0.0, self.count)
        # The step only launches the update; a weight can be read once it is done.
        self.smallest.asnumpy()
        self.count += 1
        self.skipped += not applied
