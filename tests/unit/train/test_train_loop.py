"""When a run ends: src/train/loop.py finds divergence, and TrainState in src/train/state.py decides early stopping."""
import contextlib
import json
import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Tensor

from src.checkpoint import read_checkpoint, write_checkpoint
from src.errors import UserError
from src.train.loop import DivergenceGuard, StepReader
from src.train.metrics import Metrics
from src.train.state import Saver, TrainState
from tests.helpers.runs import run_folder, schedule, settings

RECORDS = [SimpleNamespace(image_id=image_id, path=f"{image_id}.jpg") for image_id in (4, 7, 139)]
LOADER = SimpleNamespace(records=RECORDS, unreadable={})


@pytest.fixture
def guard(tmp_path):
    """The guard of a new run in mixed precision."""
    return DivergenceGuard(settings(mix=True), LOADER, Saver(run_folder(tmp_path), None, TrainState(0), schedule(100), ["a"], {}))


def check(guard, *losses, applied=False):
    for loss in losses:
        guard.saver.state.advance(applied)
        guard.check(loss, 0.01, [SimpleNamespace(image_id=np.array([7])), SimpleNamespace(image_id=np.array([4]))])


def test_21_skipped_steps_in_a_row_end_a_run_in_mixed_precision(guard):
    check(guard, *[math.nan] * 20)
    check(guard, 1.0, applied=True)
    check(guard, *[math.nan] * 20)
    with pytest.raises(UserError, match=r"21 steps .* at step 42, with learning rate 0.01 and the images 7.jpg, 4.jpg;"):
        check(guard, math.nan)


@pytest.mark.parametrize(("losses", "is_error"), [
    ([], False), ([1.0], False), ([1.0, 1.0], True), ([math.nan], True), ([math.inf, math.inf], True)])
def test_a_run_that_ends_with_skipped_steps(guard, losses, is_error):
    check(guard, 1.0, applied=True)
    check(guard, *losses)
    message = rf"its last {len(losses)} steps were skipped.*; start again from the beginning with"
    with pytest.raises(UserError, match=message) if is_error else contextlib.nullcontext():
        guard.check_end()


def test_a_step_is_read_when_the_next_has_started_or_at_a_log_line_a_checkpoint_or_the_end_of_an_epoch(tmp_path, monkeypatch):
    """Epochs have 5 steps. A line is logged every 3 steps, and a checkpoint is saved after step 7. Step 2 is skipped."""
    log, state, at, run = [], TrainState(0), schedule(5, save_interval_steps=7), run_folder(tmp_path)
    guard = DivergenceGuard(settings(mix=True), LOADER, Saver(run, None, state, at, ["a"], {}))
    metrics, asnumpy = Metrics(settings(tmp_path, log_interval=3), run, at, state), Tensor.asnumpy
    reader = StepReader(metrics, guard)
    monkeypatch.setattr(Tensor, "asnumpy", lambda tensor: log.append(int(asnumpy(tensor)[0])) or asnumpy(tensor))
    with metrics:
        for done in range(1, 9):
            log.append(f"start {done}")
            numbers = Tensor(np.float32([done, 0, 0, 0, 0, done == 8, done != 2, 256]))
            reader.add(numbers, done, 0.1, [SimpleNamespace(image_id=np.array([4]))], {})
        before = state.global_step, reader.stop
        reader.read()
    assert log == ["start 1", "start 2", 1, "start 3", 2, 3, "start 4", "start 5", 4, 5, "start 6", 6, "start 7", 7, "start 8", 8]
    assert before == (7, False)
    assert state.global_step == 8 and reader.stop and (state.skipped_steps, state.skipped_in_a_row) == (1, 0)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["global_step"], line["loss"], line["skipped_steps"]) for line in lines] == [(3, 2, 1), (5, 4.5, 1), (6, 6, 1)]


def after(scores, state=None):
    """Return the state after evaluations with these APs, one per epoch of 5 steps, and which of them were the best so far."""
    state = state or TrainState(0)
    best = []
    for epoch, ap in enumerate(scores, start=state.evaluated + 1):
        state.global_step = 5 * epoch
        best.append(state.add_evaluation(epoch, ap))
    return state, best


@pytest.mark.parametrize(("scores", "best", "best_epoch", "evals_since_best"), [
    ([0.1, 0.3, 0.2, 0.3, 0.25], [True, True, False, False, False], 2, 3),   # an equal AP is not better
    ([0.3, 0.1, 0.4, 0.2], [True, False, True, False], 3, 1),                # a better AP resets the count
    ([0.0, 0.0], [True, False], 1, 1),                                       # AP 0 is valid
    ([-1.0, -1.0], [False, False], 0, 2)])                                   # COCO's -1: no objects
def test_evaluations_without_a_better_ap_are_counted(scores, best, best_epoch, evals_since_best):
    state, found = after(scores)
    assert found == best
    assert (state.best_epoch, state.evals_since_best, state.evaluated) == (best_epoch, evals_since_best, len(scores))
    assert state.best_ap == pytest.approx(max(scores), rel=1e-7)


@pytest.mark.parametrize(("early_stop", "ends"), [(0, 10), (1, 4), (2, 5), (3, 9), (4, 10)])
def test_the_epoch_after_which_training_ends(caplog, early_stop, ends):
    """Epochs 4, 5, then 7 to 10 have no better AP. Epoch 10 is the last one, which ends the run in any case."""
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    plan, state = schedule(5, epochs=10, early_stop=early_stop), TrainState(0)
    scores = iter([0.1, 0.2, 0.3, 0.2, 0.3, 0.4, 0.1, 0.1, 0.1, 0.1])
    while not state.is_over(plan):
        after([next(scores)], state)
    assert state.evaluated == ends
    assert len(caplog.messages) == (ends < 10)
    if ends < 10:
        best = "0.4000 of epoch 6" if ends > 6 else "0.3000 of epoch 3"
        assert caplog.messages[0].startswith(f"training ends early, after epoch {ends} of 10: the last {early_stop} evaluations "
                                             f"had no better AP than the {best}; give -o early_stop=N")
        state.best_epoch = 0  # as in an older checkpoint
        assert state.is_over(plan) and f"AP than the {best[:6]}; give" in caplog.messages[1]


@pytest.mark.parametrize(("later", "evals_since_best"), [(0.6, 2), (0.7, 2), (0.8, 0)])
@pytest.mark.parametrize("name", ["evals_since_best", "not_better"])
def test_a_resumed_run_continues_the_count(tmp_path, later, evals_since_best, name):
    """Checkpoints store float32, in which 0.7 is slightly less than in float64. Earlier versions call the count not_better."""
    plan, path = schedule(5, epochs=9), str(tmp_path / "a.ckpt")
    state, _ = after([0.7, 0.6])
    values = {**state.progress(plan), "loss_scale": 1.0}
    values[name] = values.pop("evals_since_best")
    write_checkpoint(path, {"weight": Tensor([1.0])}, values)
    resumed = TrainState(0)
    resumed.restore(read_checkpoint(path).progress, plan)
    assert resumed == state and resumed.evals_since_best == 1
    assert after([later], resumed) == after([later], state)
    assert resumed.evals_since_best == evals_since_best
