"""Early stopping: src/train/saver.py counts evaluations, src/train/loop.py decides and logs the reason."""
import logging

import pytest
from mindspore import Tensor

from src.checkpoint import read_checkpoint, write_checkpoint
from src.train.loop import is_over
from src.train.saver import TrainState
from tests.helpers.runs import schedule


def after(scores, state=None):
    """Return the state after evaluations with these APs, one per epoch of 5 steps, and which of them were the best so far."""
    state = state or TrainState(0)
    best = []
    for epoch, ap in enumerate(scores, start=state.evaluated + 1):
        state.global_step = 5 * epoch
        best.append(state.add_evaluation(epoch, ap))
    return state, best


@pytest.mark.parametrize(("scores", "best", "best_epoch", "not_better"), [
    ([0.1, 0.2, 0.3], [True, True, True], 3, 0),
    ([0.1, 0.3, 0.2, 0.3, 0.25], [True, True, False, False, False], 2, 3),   # an equal AP is not better
    ([0.3, 0.1, 0.4, 0.2], [True, False, True, False], 3, 1),                # a better AP resets the count
    ([0.0, 0.0], [True, False], 1, 1),                                       # AP 0 is valid
    ([-1.0, -1.0], [False, False], 0, 2)])                                   # COCO's -1: no objects
def test_evaluations_without_a_better_ap_are_counted(scores, best, best_epoch, not_better):
    state, found = after(scores)
    assert found == best
    assert (state.best_epoch, state.not_better, state.evaluated) == (best_epoch, not_better, len(scores))
    assert state.best_ap == pytest.approx(max(scores), rel=1e-7)


@pytest.mark.parametrize(("early_stop", "ends"), [(0, 10), (1, 4), (2, 5), (3, 9), (4, 10)])
def test_the_epoch_after_which_training_ends(early_stop, ends):
    """Epochs 4, 5, then 7 to 10 have no better AP. Epoch 10 is the last one, which ends the run in any case."""
    plan = schedule(5, epochs=10)
    state = TrainState(0)
    for epoch, ap in enumerate([0.1, 0.2, 0.3, 0.2, 0.3, 0.4, 0.1, 0.1, 0.1, 0.1], start=1):
        assert not is_over(state, plan, early_stop)
        state.global_step = 5 * epoch
        state.add_evaluation(epoch, ap)
        if is_over(state, plan, early_stop):
            break
    assert epoch == ends


def test_what_is_said(caplog):
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    state, _ = after([0.25, 0.125, 0.125])
    assert is_over(state, schedule(5, epochs=9), 2)
    state.best_epoch = 0  # as in an older checkpoint
    assert is_over(state, schedule(5, epochs=9), 1)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("training ends early, after epoch 3 of 9: the last 2 evaluations had no better AP than the 0.2500 of "
                            "epoch 1; give -o early_stop=N")
    assert "than the 0.2500; give" in second


@pytest.mark.parametrize("epochs", [3, 2])
def test_a_run_that_has_done_all_its_epochs_does_not_end_early(caplog, epochs):
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    state, _ = after([0.25, 0.125, 0.125])
    assert is_over(state, schedule(5, epochs=epochs), 2)
    assert not caplog.records


@pytest.mark.parametrize(("later", "not_better"), [(0.6, 2), (0.7, 2), (0.8, 0)])
def test_the_count_goes_on_from_a_checkpoint(tmp_path, later, not_better):
    """Checkpoints store float32, in which 0.7 is slightly less than in float64."""
    plan, path = schedule(5, epochs=9), str(tmp_path / "a.ckpt")
    state, _ = after([0.7, 0.6])
    write_checkpoint(path, {"weight": Tensor([1.0])}, {**state.progress(plan), "loss_scale": 1.0})
    resumed = TrainState(0)
    resumed.restore(read_checkpoint(path).progress, plan)
    assert resumed == state and resumed.not_better == 1
    assert after([later], resumed) == after([later], state)
    assert resumed.not_better == not_better
