"""What the training loop in train.py does around its steps."""
from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from src.dataset.loader import Batch
from src.errors import UserError
from src.signals import Stopped, StopSignals
from src.train.evaluator import Evaluator
from src.train.metrics import Metrics
from src.train.saver import Saver


def timed_batches(loader: Iterable[Batch], stop: StopSignals) -> Iterator[tuple[Batch, float]]:
    """Yield each batch with the seconds that were spent waiting for it; meanwhile a signal may end the process."""
    batches = iter(loader)
    while True:
        start = time.perf_counter()
        with stop.idle():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - start


def evaluate_if_due(evaluator: Evaluator | None, saver: Saver, metrics: Metrics) -> None:
    """Evaluate where an epoch has ended whose evaluation is due and not done yet, and keep the best checkpoint."""
    state, schedule, group = saver.state, saver.schedule, saver.run.group
    epoch, steps = schedule.position(state.global_step)
    if evaluator is None or steps or not schedule.evaluates(epoch) or state.evaluated >= epoch:
        return
    scores = evaluator.evaluate()
    state.evaluated = epoch
    is_best = False
    if scores is not None:  # on rank 0
        metrics.add_evaluation(scores)
        is_best = scores["AP"] > state.best_ap
        state.best_ap = max(scores["AP"], state.best_ap)
    # Once more: a run that goes on from here must know that this is done, and what the best AP is.
    saver.save()
    if group.broadcast(is_best):
        saver.save_best()
    metrics.draw_curves()


def stop_if_asked(stop: StopSignals, saver: Saver) -> None:
    """Save and raise Stopped where any process of the group has had a signal."""
    status = saver.run.group.max(stop.status)
    if status:
        if saver.saved_step != saver.state.global_step:
            saver.save()
        raise Stopped(status)


def check_saved(saver: Saver) -> None:
    """Check at the end of a run that its last checkpoint is on the disk.

    Raises:
        UserError: it could not be written.
    """
    if saver.failure:
        raise UserError(f"training is done, but {saver.failure}; make room and go on with --resume_ckpt auto.")
