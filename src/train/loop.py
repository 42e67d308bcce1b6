"""Parts of the training loop in train.py: steps with their data, profiling, evaluation, divergence and signals."""
from __future__ import annotations

import hashlib
import itertools
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Callable

from mindspore import Tensor

from src.config import Config
from src.dataset.annotations import Dataset
from src.dataset.image import UnreadableImageError, check_image
from src.dataset.loader import Batch, EvalLoader, TrainLoader
from src.dataset.splits import open_validation_set
from src.detector import Predictor
from src.errors import UserError
from src.evaluation.evaluate import evaluate, unreadable_image
from src.models.faster_rcnn import FasterRCNN, can_overflow
from src.run.launch import Stopped, StopSignals
from src.run.optional import evaluation_writer, reports
from src.run.run_folder import RunFolder
from src.train.metrics import Metrics
from src.train.state import Saver, Schedule, TrainState
from src.train.step import StepResult, TrainStep

logger = logging.getLogger("faster_rcnn")

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


def profiled(step: TrainStep, cfg: Config, run: RunFolder) -> AbstractContextManager[Callable]:
    """Return a context with the function `step`; on rank 0 and if cfg.run_profiler is True, some of its calls are profiled into
    <save_dir>/profiler, see `src.report.profiler.profiled`."""
    pages = reports() if cfg.run_profiler and run.group.rank == 0 else None
    return pages.profiled(step, os.path.join(run.path, "profiler"), cfg.device_target) if pages else nullcontext(step)


class Evaluator:
    """Evaluates the network on the validation set, which must have the same classes as `train_set`.

    The results are written to the subfolder `eval` of the run. A signal aborts an evaluation; a resumed run repeats it.
    The constructor raises a UserError if the validation set cannot be opened or has other classes, if cfg.font is not a font, or
    if an image cannot be read. `digest` is a digest of the images and boxes, whatever their folder.
    """

    def __init__(self, cfg: Config, network: FasterRCNN, train_set: Dataset, run: RunFolder, stop: StopSignals):
        self.cfg, self.network, self.run, self.stop = cfg, network, run, stop
        self.dataset = open_validation_set(cfg, run.group, train_set.names)
        if self.dataset.names != train_set.names:
            raise UserError(f"{self.dataset.annotation_path} has the classes {self.dataset.names}, but "
                            f"{train_set.annotation_path} has {train_set.names}; both must list the same categories.")
        for record in () if cfg.skip_bad_images else self.dataset.records[run.group.rank::run.group.size]:
            try:
                check_image(record.path, (record.height, record.width))
            except UnreadableImageError as error:
                raise unreadable_image(record.path, error) from error
        content = [(*record[:1], *record[2:4], record.boxes.tolist(), record.labels.tolist()) for record in self.dataset.records]
        self.digest = hashlib.sha256(repr((self.dataset.names, content)).encode()).hexdigest()
        self.loader = EvalLoader(self.dataset, cfg, run.group.rank, run.group.size)
        self.predictor = Predictor(network, cfg)
        self.write = evaluation_writer(cfg, self.dataset)

    def evaluate(self, title: str) -> dict | None:
        """Return the metrics on rank 0, and None on other ranks. `title` is the title of the evaluation report.

        Raises Stopped if the process has received a signal, and UserErrors of `src.evaluation.evaluate.evaluate`.
        """
        with self.stop.idle():
            evaluation = evaluate(self._predict, self.loader, self.dataset, self.cfg, self.run.group)
        self.network.set_train()
        if evaluation is None:
            return None
        try:
            self.write(os.path.join(self.run.path, "eval"), evaluation, title)
        except UserError as error:
            logger.error("%s; training goes on", error)
        return evaluation.metrics

    def _predict(self, image, valid_size):
        if self.stop.status:
            raise Stopped(self.stop.status)
        return self.predictor(image, valid_size)


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
    if state.add_evaluation(epoch, group.broadcast(scores and scores["AP"])) and not saver.write(saver.run.best_checkpoint):
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


class StepReader:
    """Counts, reports and checks each step when the next one has started, so that no step waits for the host. Steps before
    a log line, a checkpoint or the end of an epoch are read at once.

    Attributes:
        stop: whether a process was asked to stop before the latest step that was read. It is the same on every process.
    """

    def __init__(self, metrics: Metrics, guard: DivergenceGuard):
        self.metrics, self.guard, self.stop = metrics, guard, False
        self.latest: tuple | None = None

    def add(self, numbers: Tensor, done: int, learning_rate: float, batches: Sequence[Batch], seconds: dict[str, float]) -> None:
        """Add a step that has just started, the last of `done` steps. For the arguments, see `TrainStep` and `Metrics.add`."""
        self.read()
        self.latest = numbers, learning_rate, batches, seconds
        if self.metrics.reports(done) or self.metrics.schedule.saves_inside_epoch(done):
            self.read()

    def read(self) -> None:
        """Read the latest step, if it has not been read."""
        if self.latest is None:
            return
        (numbers, learning_rate, batches, seconds), self.latest = self.latest, None
        result = StepResult.read(numbers)
        self.stop = result.stop
        self.metrics.state.advance(result.applied)
        self.metrics.add(result.losses, learning_rate, result.loss_scale, seconds)
        self.guard.check(result.losses[0], learning_rate, batches)


def stop_if_asked(stop: StopSignals, saver: Saver, reader: StepReader) -> None:
    """Save a checkpoint and raise Stopped if a process of the group has received a signal. Several processes notice it at the
    same step, up to two steps later."""
    group = saver.run.group
    if not (stop.status if group.size == 1 else reader.stop):
        return
    reader.read()
    if saver.saved_step != saver.state.global_step:
        saver.save()
    raise Stopped(group.max(stop.status))
