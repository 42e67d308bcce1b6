"""Parts of the training loop in train.py: iteration over steps, evaluation, early stopping and signals."""
from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator

from src.dataset.loader import Batch, TrainLoader
from src.run.signals import Stopped, StopSignals
from src.train.evaluator import Evaluator
from src.train.metrics import Metrics
from src.train.saver import Saver, TrainState
from src.train.schedule import Schedule

logger = logging.getLogger("faster_rcnn")


def timed_steps(loader: TrainLoader, cfg, state: TrainState, schedule: Schedule,
                stop: StopSignals) -> Iterator[tuple[list[Batch], float]]:
    """Yield the micro-batches of each step, from `state.global_step` to the end of training, and the seconds spent waiting for
    them. While the loop waits for data, a signal may end the process."""
    batches = loader.batches(state.global_step * cfg.accumulate_steps)
    while not is_over(state, schedule, cfg.early_stop):
        start = time.perf_counter()
        with stop.idle():
            micro_batches = list(itertools.islice(batches, cfg.accumulate_steps))
        yield micro_batches, time.perf_counter() - start


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


def is_over(state: TrainState, schedule: Schedule, early_stop: int) -> bool:
    """Return whether training is over: all epochs are done, or the last `early_stop` evaluations did not improve the AP.
    Early stopping is logged; 0 disables it."""
    if state.global_step >= schedule.total_steps:
        return True
    if not early_stop or state.not_better < early_stop:
        return False
    best_epoch = f" of epoch {state.best_epoch}" if state.best_epoch else ""
    logger.info("training ends early, after epoch %d of %d: the last %d evaluations had no better AP than the %.4f%s; give "
                "-o early_stop=N with a larger N to train on", state.evaluated, schedule.epochs, state.not_better, state.best_ap,
                best_epoch)
    return True


def stop_if_asked(stop: StopSignals, saver: Saver) -> None:
    """Save a checkpoint and raise Stopped if any process of the group has received a signal."""
    status = saver.run.group.max(stop.status)
    if status:
        if saver.saved_step != saver.state.global_step:
            saver.save()
        raise Stopped(status)
