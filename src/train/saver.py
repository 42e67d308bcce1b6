"""The state of a training run, and the checkpoints that store it."""
from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass

import numpy as np

from src.checkpoint import CLASS_NAMES, write_checkpoint
from src.errors import UserError
from src.run.files import PARTIAL, writing_into
from src.run.run_folder import RunFolder
from src.train.schedule import Schedule
from src.train.statistics import gather_statistics
from src.train.step import TrainStep

logger = logging.getLogger("faster_rcnn")


@dataclass
class TrainState:
    """Counters of a run.

    Attributes:
        seed: random seed of the run.
        global_step: number of completed steps.
        skipped_steps: number of completed steps that were skipped because of overflow.
        evaluated: last evaluated epoch, counted from 1.
        best_ap: best AP so far, rounded to float32 as in checkpoints.
        best_epoch: epoch of the best AP, counted from 1; 0 if unknown.
        not_better: number of evaluations since the best AP.
        skipped_in_a_row: number of consecutive skipped steps up to now, since this process started.
    """
    seed: int
    global_step: int = 0
    skipped_steps: int = 0
    evaluated: int = 0
    best_ap: float = -1.0
    best_epoch: int = 0
    not_better: int = 0
    skipped_in_a_row: int = 0

    def advance(self, applied: bool) -> None:
        """Count a step. `applied` is False if the step was skipped."""
        self.global_step += 1
        self.skipped_steps += not applied
        self.skipped_in_a_row = 0 if applied else self.skipped_in_a_row + 1

    def add_evaluation(self, epoch: int, ap: float) -> bool:
        """Count an evaluation after `epoch` epochs. Return whether its AP is the best so far."""
        self.evaluated, self.not_better = epoch, self.not_better + 1
        ap = float(np.float32(ap))  # so that a resumed run makes the same decisions
        is_best = ap > self.best_ap
        if is_best:
            self.best_ap, self.best_epoch, self.not_better = ap, epoch, 0
        return is_best

    def progress(self, schedule: Schedule) -> dict[str, float]:
        """Return the counters to store in a checkpoint. `epoch` is the number of complete epochs."""
        epoch, steps = schedule.position(self.global_step)
        return {"epoch": epoch, "epoch_images": steps * schedule.images_per_step, "global_step": self.global_step,
                "skipped_steps": self.skipped_steps, "evaluated": self.evaluated, "best_ap": self.best_ap, "seed": self.seed,
                "best_epoch": self.best_epoch, "not_better": self.not_better}

    def restore(self, progress: dict[str, float], schedule: Schedule) -> None:
        """Restore the counters from `progress`: the same number of epochs, and of images in the current epoch. The schedule may
        differ from the schedule of the run that saved them."""
        steps = min(int(progress["epoch_images"]) // schedule.images_per_step, schedule.steps_per_epoch - 1)
        self.global_step = int(progress["epoch"]) * schedule.steps_per_epoch + steps
        self.skipped_steps = int(progress["skipped_steps"])
        self.evaluated = int(progress["evaluated"])
        self.best_ap = progress["best_ap"]
        # Checkpoints before 0.7.0 lack these two counters.
        self.best_epoch, self.not_better = (int(progress.get(name, 0)) for name in ("best_epoch", "not_better"))


class Saver:
    """Writes the checkpoints of a run: its state, the weights, momenta and loss scale of `step`, and the class names.

    Ranks other than 0 only contribute their BatchNorm statistics.

    Attributes:
        saved_step: state.global_step of the last checkpoint written, or None.
        failure: on rank 0, the reason why the last checkpoint could not be written, or None.
        good_start: path of the last checkpoint that was not saved directly after a skipped step.
        later: on rank 0, paths of existing checkpoints of steps after the start of this run. The first save moves them away.
    """

    def __init__(self, run: RunFolder, step: TrainStep, state: TrainState, schedule: Schedule, class_names: list[str]):
        self.run, self.step, self.state, self.schedule, self.class_names = run, step, state, schedule, class_names
        self.saved_step: int | None = None
        self.failure: str | None = None
        self.good_start, self.later = "the beginning", []

    def begin(self, source: str) -> None:
        """Raise a UserError if no checkpoint can be written. `source` is the path of the checkpoint that training starts from;
        it may be empty."""
        self.good_start = source or self.good_start
        if self.run.group.rank == 0:
            self.later = self.run.later_checkpoints(*self.schedule.position(self.state.global_step))
            with writing_into(self.run.checkpoint_folder, "checkpoints"):
                probe = os.path.join(self.run.checkpoint_folder, PARTIAL + "probe.ckpt")
                write_checkpoint(probe, {}, {"probe": 0.0})
                os.remove(probe)

    def save(self) -> None:
        """Write a checkpoint and remove old checkpoints. All ranks must call this together.

        If the checkpoint cannot be written, an error is logged and no old checkpoint is removed. None is removed after a skipped
        step either, because the run may have diverged. A non-finite weight, momentum or statistic raises a UserError.
        """
        path = self.run.checkpoint(*self.schedule.position(self.state.global_step))
        if self._write(path):
            self.saved_step, self.failure = self.state.global_step, None
            if not self.state.skipped_in_a_row:
                self.good_start = path
                self.run.remove_old_checkpoints()
        self.run.upload()

    def save_best(self) -> bool:
        """Write the best checkpoint and return whether it was written. All ranks must call this together."""
        return self._write(self.run.best_checkpoint)

    def _write(self, path):
        """Return whether the checkpoint was written. All ranks wait for it, as any rank may end the run next."""
        group, written = self.run.group, True
        statistics = gather_statistics(group, self.step.network)
        if group.rank == 0:
            tensors = {parameter.name: parameter for parameter in self.step.parameters()}
            values = {**self.state.progress(self.schedule), **self.step.loss_scale_state(),
                      CLASS_NAMES: json.dumps(self.class_names)}
            try:
                os.makedirs(self.run.checkpoint_folder, exist_ok=True)
                if path in self.later:
                    self.later.remove(path)
                    self.run.supersede([path])
                write_checkpoint(path, {**tensors, **statistics}, values)
                logger.info("saved %s", path)
                self.run.supersede(self.later)  # no longer needed to resume
                self.later = []
            except OSError as error:
                written, self.failure = False, f"{path} could not be written ({error.strerror or error})"
                logger.error("%s; training goes on, and earlier checkpoints are as they were", self.failure)
            except UserError as error:
                raise UserError(f"{error}; start again from {self.good_start} with a smaller lr_init.") from error
        return group.broadcast(written)
