"""src/train/divergence.py: when a run stops, and its messages."""
import math

import numpy as np
import pytest

from src.dataset.annotations import Record
from src.errors import UserError
from src.train.divergence import DivergenceGuard
from src.train.saver import Saver, TrainState
from tests.helpers.runs import run_folder, schedule

RECORDS = [Record(image_id, f"images/{image_id}.jpg", 10, 10, np.zeros((0, 4)), np.zeros(0)) for image_id in (4, 7, 139, 285)]


def guard_of(folder, can_overflow):
    """Return the guard of a new run."""
    return DivergenceGuard(can_overflow, RECORDS, Saver(run_folder(folder), None, TrainState(0), schedule(100), ["a"]))


def check(guard, loss, applied, rate=0.01, images=(7,)):
    guard.saver.state.advance(applied)
    guard.check(loss, rate, images)


def skip(guard, steps, loss=1.0):
    for _ in range(steps):
        check(guard, loss, False)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_a_run_in_fp32(tmp_path, loss):
    guard = guard_of(tmp_path, False)
    guard.saver.state.global_step, guard.saver.good_start = 11, "a.ckpt"
    with pytest.raises(UserError) as error:
        check(guard, loss, False, 0.0125, [139, 285])
    sentence = str(error.value)
    assert f"the loss is {loss} at step 12, with learning rate 0.0125 and the images images/139.jpg, images/285.jpg;" in sentence
    assert sentence.endswith(" start again from a.ckpt with a smaller lr_init.") and "\n" not in sentence


def test_in_mixed_precision_it_is_a_skipped_step(tmp_path):
    guard = guard_of(tmp_path, True)
    skip(guard, 20, math.nan)
    with pytest.raises(UserError, match=r"21 steps in a row .* at step 21, with learning rate 0.01 and the images images/4.jpg;"):
        check(guard, math.nan, False, 0.01, [4])


@pytest.mark.parametrize(("loss", "skipped", "is_error"), [
    (1.0, 0, False), (1.0, 1, False), (1.0, 2, True), (1.0, 20, True), (math.nan, 1, True), (math.inf, 2, True)])
def test_a_run_that_ends_with_skipped_steps(tmp_path, loss, skipped, is_error):
    guard = guard_of(tmp_path, True)
    check(guard, 1.0, True)
    skip(guard, skipped, loss)
    if is_error:
        with pytest.raises(UserError, match=rf"its last {skipped} steps were skipped.*; start again from the beginning with"):
            guard.check_end()
    else:
        guard.check_end()


@pytest.mark.parametrize("mix", [True, False])
def test_a_step_that_counts_ends_the_row(tmp_path, mix):
    guard = guard_of(tmp_path, mix)
    skip(guard, 20)
    check(guard, 1.0, True)
    skip(guard, 20)
    with pytest.raises(UserError, match="21 steps in a row"):
        skip(guard, 1)
