"""Parts of the training loop in train.py: steps with their data, profiling, evaluation, divergence and signals."""
from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Callable

from mindspore import profiler

from src.config import Config
from src.dataset.loader import Batch, TrainLoader
from src.errors import UserError
from src.models.faster_rcnn import can_overflow
from src.run.files import make_folder
from src.run.run_folder import RunFolder
from src.run.signals import Stopped, StopSignals
from src.train.evaluator import Evaluator
from src.train.metrics import Metrics
from src.train.schedule import Schedule
from src.train.state import Saver, TrainState

logger = logging.getLogger("faster_rcnn")

FIRST, LAST = 3, 7  # profiled steps of a run; earlier steps compile graphs and allocate memory
MAX_SKIPPED_STEPS = 20  # consecutive steps


def timed_steps(loader: TrainLoader, cfg: Config, state: TrainState, schedule: Schedule,
                stop: StopSignals) -> Iterator[tuple[list[Batch], float]]:
    """Yield the micro-batches of each step, from `state.global_step` to the end of training, and the seconds spent waiting for
    them. While the loop waits for data, a signal may end the process."""
    if state.global_step >= schedule.total_steps:
        logger.info("all %d epochs are done; give -o epochs=N with a larger N to continue", schedule.epochs)
    batches = loader.batches(state.global_step * cfg.accumulate_steps)
    while not state.is_over(schedule):
        start = time.perf_counter()
        with stop.idle():
            micro_batches = list(itertools.islice(batches, cfg.accumulate_steps))
        yield micro_batches, time.perf_counter() - start


@contextlib.contextmanager
def profiled(step: Callable, cfg: Config, run: RunFolder) -> Iterator[Callable]:
    """Yield a wrapper of `step` that profiles calls FIRST to LAST into <save_dir>/profiler with MindSpore's profiler. If
    cfg.run_profiler is False or the rank is not 0, yield `step` unchanged. Raise a UserError if the folder is not writable."""
    if not cfg.run_profiler or run.group.rank > 0:
        yield step
        return
    folder = make_folder(os.path.join(run.path, "profiler"))
    kind = profiler.ProfilerActivity
    device = {"Ascend": [kind.NPU], "GPU": [kind.GPU], "CPU": []}[cfg.device_target]
    profile = profiler.profile(activities=[kind.CPU, *device], start_profile=False,
                               on_trace_ready=profiler.tensorboard_trace_handler(folder))
    done = 0

    def finish():
        profile.stop()
        logger.info("steps %d to %d of this run are profiled in %s", FIRST, done, folder)

    def profiled_step(*arguments):
        nonlocal done
        if done == FIRST - 1:
            profile.start()
        outcome = step(*arguments)
        done += 1
        if FIRST <= done <= LAST:
            profile.step()
        if done == LAST:
            finish()
        return outcome

    try:
        yield profiled_step
    finally:
        if FIRST <= done < LAST:
            finish()
        elif done < FIRST:
            logger.warning("nothing was profiled: the run had fewer than %d steps", FIRST)


def evaluate_if_due(evaluator: Evaluator | None, saver: Saver, metrics: Metrics) -> None:
    """Evaluate at the end of an epoch if an evaluation is due and not done yet, and save the best checkpoint."""
    state, schedule, group = saver.state, saver.schedule, saver.run.group
    epoch, steps = schedule.position(state.global_step)
    if evaluator is None or steps or not schedule.evaluates(epoch) or state.evaluated >= epoch:
        return
    scores = evaluator.evaluate(f"epoch {epoch} of {saver.run.path}")
    if scores is not None:  # on rank 0
        metrics.add_evaluation(scores)
    before = dict(vars(state))
    # The best checkpoint is saved first: if the run is killed in between or cannot write it, the resumed run evaluates again.
    if state.add_evaluation(epoch, group.broadcast(scores and scores["AP"])) and not saver.save_best():
        vars(state).update(before)
    else:
        saver.save()
    metrics.draw_curves()


class DivergenceGuard:
    """Ends a diverged run while its last checkpoint is still good. With float16, a non-finite loss only skips its step."""

    def __init__(self, cfg: Config, loader: TrainLoader, saver: Saver):
        self.can_overflow, self.loader, self.saver = can_overflow(cfg), loader, saver

    def check(self, loss: float, learning_rate: float, batches: Sequence[Batch]) -> None:
        """Check the latest step, which the state of `saver` must already include. Raise a UserError if the loss is not finite, or
        if the gradients overflowed in more than MAX_SKIPPED_STEPS consecutive steps."""
        self.loss, step, skipped = loss, self.saver.state.global_step, self.saver.state.skipped_in_a_row
        diverged = not self.can_overflow and not math.isfinite(loss)
        if not diverged and skipped <= MAX_SKIPPED_STEPS:
            return
        path_of = {record.image_id: record.path for record in self.loader.records}
        images = ", ".join(path_of[image_id] for batch in batches for image_id in batch.image_id)
        where = f"at step {step}, with learning rate {learning_rate:.3g} and the images {images}"
        if diverged:
            raise UserError(f"the loss is {loss} {where}; the weights are unchanged: look at the boxes of these images, and "
                            f"start again from {self.saver.good_start} with a smaller lr_init.")
        raise UserError(f"{skipped} steps in a row had gradients that are not finite, the last one {where}; {self._advice()}")

    def check_end(self) -> None:
        """Log the number of unreadable images after the last step. Raise a UserError if the last checkpoint could not be written,
        or if the last steps were skipped. A single overflow with a finite loss is normal with a loss scale, not an error."""
        if unreadable := len(self.loader.unreadable):
            logger.warning("%d of %d training images could not be read and were skipped", unreadable, len(self.loader.records))
        if self.saver.failure:
            raise UserError(f"training is done, but {self.saver.failure}; make room and go on with --resume_ckpt auto.")
        skipped = self.saver.state.skipped_in_a_row
        if skipped > 1 or skipped and not math.isfinite(self.loss):
            raise UserError(f"training is done, but its last {skipped} steps were skipped, as the loss or the gradients were not "
                            f"finite; {self._advice()}")

    def _advice(self):
        return f"start again from {self.saver.good_start} with a smaller ms_loss_scaler_value or lr_init."


def stop_if_asked(stop: StopSignals, saver: Saver) -> None:
    """Save a checkpoint and raise Stopped if any process of the group has received a signal."""
    status = saver.run.group.max(stop.status)
    if status:
        if saver.saved_step != saver.state.global_step:
            saver.save()
        raise Stopped(status)
