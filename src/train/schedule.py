"""Schedule of a training run: the learning rate of each step, and when epochs end and checkpoints and evaluations are due."""
from __future__ import annotations

import logging

from src.config import Config
from src.run.distributed import Group

logger = logging.getLogger("faster_rcnn")


class Schedule:
    """The learning-rate, checkpoint and evaluation schedule. Steps are counted from 0: i + 1 steps are done after step i.

    In each step, every process computes cfg.accumulate_steps micro-batches and updates the weights once. `lr_init` is scaled
    linearly from `lr.base_batch_size` images per step to `images_per_step` (arXiv:1706.02677), unless that setting is 0.

    Attributes:
        images_per_step: number of images per step over all processes.
        steps_per_epoch: number of steps per epoch.
        epochs: number of epochs of the run.
        total_steps: number of steps of the run.
        early_stop: number of evaluations without a better AP after which training ends; 0 disables it.
    """

    def __init__(self, cfg: Config, steps_per_epoch: int, group: Group):
        self.images_per_step = cfg.batch_size * cfg.accumulate_steps * group.size
        self.steps_per_epoch = steps_per_epoch
        self.epochs, self.total_steps, self.early_stop = cfg.epochs, cfg.epochs * steps_per_epoch, cfg.early_stop
        self._lr, self._base_rate, base = cfg.lr, cfg.lr_init, cfg.lr.base_batch_size
        if base:
            self._base_rate = cfg.lr_init * self.images_per_step / base
            logger.info("learning rate: %g for %d images per step, scaled to %g for %d images per step (lr.base_batch_size=0 "
                        "disables the scaling)", cfg.lr_init, base, self._base_rate, self.images_per_step)
        self._save_interval, self._eval_interval = cfg.save_interval_steps, cfg.eval_interval

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of step number `step`. During the first `warmup_step` steps it grows linearly from
        warmup_ratio times the base rate. Each milestone multiplies it by `decay_rate`."""
        lr = self._lr
        passed = sum(step >= milestone * self.steps_per_epoch for milestone in lr.milestones)
        rate = self._base_rate * lr.decay_rate**passed
        if step < lr.warmup_step:
            rate *= lr.warmup_ratio + (1 - lr.warmup_ratio) * step / lr.warmup_step
        return rate

    def position(self, done: int) -> tuple[int, int]:
        """Return the number of complete epochs after `done` steps, and the number of steps done in the current epoch."""
        return divmod(done, self.steps_per_epoch)

    def ends_epoch(self, done: int) -> bool:
        """Return whether an epoch ends after `done` steps."""
        return done % self.steps_per_epoch == 0

    def saves_inside_epoch(self, done: int) -> bool:
        """Return whether save_interval_steps requires a checkpoint after `done` steps."""
        return self._save_interval > 0 and done % self._save_interval == 0

    def evaluates(self, epoch: int) -> bool:
        """Return whether an evaluation is due after `epoch` complete epochs."""
        return epoch > 0 and (epoch % self._eval_interval == 0 or epoch == self.epochs)
