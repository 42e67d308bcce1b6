"""When a run ends: src/train/loop.py finds divergence, and TrainState in src/train/state.py decides early stopping."""
import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Tensor

from src.checkpoint import read_checkpoint, write_checkpoint
from src.errors import UserError
from src.train.loop import DivergenceGuard
from src.train.state import Saver, TrainState
from tests.helpers.runs import run_folder, schedule, settings

RECORDS = [SimpleNamespace(image_id=image_id, path=f"images/{image_id}.jpg") for image_id in (4, 7, 139)]
LOADER = SimpleNamespace(records=RECORDS, unreadable={})


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    return caplog


def guard_of(folder, mix):
    """Return the guard of a new run."""
    return DivergenceGuard(settings(mix=mix), LOADER, Saver(run_folder(folder), None, TrainState(0), schedule(100), ["a"]))


def check(guard, loss, applied, rate=0.01, images=(7,)):
    guard.saver.state.advance(applied)
    guard.check(loss, rate, [SimpleNamespace(image_id=np.array([image_id])) for image_id in images])


def skip(guard, steps, loss=1.0):
    for _ in range(steps):
        check(guard, loss, False)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_a_run_in_fp32(tmp_path, loss):
    guard = guard_of(tmp_path, False)
    guard.saver.state.global_step, guard.saver.good_start = 11, "a.ckpt"
    with pytest.raises(UserError) as error:
        check(guard, loss, False, 0.0125, [139, 4])
    sentence = str(error.value)
    assert f"the loss is {loss} at step 12, with learning rate 0.0125 and the images images/139.jpg, images/4.jpg;" in sentence
    assert sentence.endswith(" start again from a.ckpt with a smaller lr_init.") and "\n" not in sentence


def test_in_mixed_precision_it_skips_a_step(tmp_path):
    guard = guard_of(tmp_path, True)
    skip(guard, 20, math.nan)
    check(guard, 1.0, True)  # an update ends the sequence of skipped steps
    skip(guard, 20, math.nan)
    with pytest.raises(UserError, match=r"21 steps in a row .* at step 42, with learning rate 0.01 and the images images/4.jpg;"):
        check(guard, math.nan, False, 0.01, [4])


@pytest.mark.parametrize(("loss", "skipped", "is_error"), [
    (1.0, 0, False), (1.0, 1, False), (1.0, 2, True), (math.nan, 1, True), (math.inf, 2, True)])
def test_a_run_that_ends_with_skipped_steps(tmp_path, loss, skipped, is_error):
    guard = guard_of(tmp_path, True)
    check(guard, 1.0, True)
    skip(guard, skipped, loss)
    if is_error:
        with pytest.raises(UserError, match=rf"its last {skipped} steps were skipped.*; start again from the beginning with"):
            guard.check_end()
    else:
        guard.check_end()


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
def test_the_epoch_after_which_training_ends(early_stop, ends):
    """Epochs 4, 5, then 7 to 10 have no better AP. Epoch 10 is the last one, which ends the run in any case."""
    plan, state = schedule(5, epochs=10, early_stop=early_stop), TrainState(0)
    scores = iter([0.1, 0.2, 0.3, 0.2, 0.3, 0.4, 0.1, 0.1, 0.1, 0.1])
    while not state.is_over(plan):
        after([next(scores)], state)
    assert state.evaluated == ends


def test_early_stopping_is_logged(log):
    state, _ = after([0.25, 0.125, 0.125])
    assert state.is_over(schedule(5, epochs=3, early_stop=2)) and not log.records  # all epochs are done
    assert state.is_over(schedule(5, epochs=9, early_stop=2))
    state.best_epoch = 0  # as in an older checkpoint
    assert state.is_over(schedule(5, epochs=9, early_stop=1))
    first, second = (record.getMessage() for record in log.records)
    assert first.startswith("training ends early, after epoch 3 of 9: the last 2 evaluations had no better AP than the 0.2500 of "
                            "epoch 1; give -o early_stop=N")
    assert "than the 0.2500; give" in second


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
