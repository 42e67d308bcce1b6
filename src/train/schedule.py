"""What a run does at which step: the learning rate, and when epochs, checkpoints and evaluations are due."""
from __future__ import annotations

import logging

from src.distributed import Group

logger = logging.getLogger("faster_rcnn")


class Schedule:
    """Steps are counted from 0: after step number i, i + 1 steps are done.

    In a step each process takes cfg.accumulate_steps micro-batches and updates the weights once.

    Attributes:
        images_per_step: of all processes.
        steps_per_epoch: as given.
        epochs: of the run.
        total_steps: of the run.
    """

    def __init__(self, cfg, steps_per_epoch: int, group: Group):
        self.images_per_step = cfg.batch_size * cfg.accumulate_steps * group.size
        self.steps_per_epoch = steps_per_epoch
        self.epochs = cfg.epochs
        self.total_steps = cfg.epochs * steps_per_epoch
        self._lr, self._base_rate = cfg.lr, scaled_base_rate(cfg, self.images_per_step)
        self._save_interval, self._eval_interval = cfg.save_interval_steps, cfg.eval_interval

    def learning_rate(self, step: int) -> float:
        """The rate of step number `step`: a linear warm-up from warmup_ratio times the base rate during `warmup_step` steps;
        times `decay_rate` after each milestone."""
        lr = self._lr
        passed = sum(step >= milestone * self.steps_per_epoch for milestone in lr.milestones)
        rate = self._base_rate * lr.decay_rate**passed
        if step < lr.warmup_step:
            rate *= lr.warmup_ratio + (1 - lr.warmup_ratio) * step / lr.warmup_step
        return rate

    def position(self, done: int) -> tuple[int, int]:
        """After `done` steps: the number of complete epochs, and the steps of the next one."""
        return divmod(done, self.steps_per_epoch)

    def ends_epoch(self, done: int) -> bool:
        """Whether an epoch ends after `done` steps."""
        return done % self.steps_per_epoch == 0

    def saves_inside_epoch(self, done: int) -> bool:
        """Whether save_interval_steps asks for a checkpoint after `done` steps."""
        return self._save_interval > 0 and done % self._save_interval == 0

    def evaluates(self, epoch: int) -> bool:
        """Whether an evaluation is due after `epoch` complete epochs."""
        return epoch > 0 and (epoch % self._eval_interval == 0 or epoch == self.epochs)


def scaled_base_rate(cfg, images_per_step: int) -> float:
    """`lr_init`, given for `lr.base_batch_size` images a step, scaled linearly to the actual number (arXiv:1706.02677).

    A `base_batch_size` of 0 leaves it as it is.
    """
    base = cfg.lr.base_batch_size
    if base == 0:
        return cfg.lr_init
    rate = cfg.lr_init * images_per_step / base
    logger.info("learning rate: %g for %d images a step, scaled to %g for %d images a step (lr.base_batch_size=0 turns the "
                "scaling off)", cfg.lr_init, base, rate, images_per_step)
    return rate
