"""src/train/divergence.py: when a run is stopped, and what is said."""
import math

import numpy as np
import pytest

from src.dataset.annotations import Record
from src.errors import UserError
from src.train.divergence import DivergenceGuard

RECORDS = [Record(image_id, f"images/{image_id}.jpg", 10, 10, np.zeros((0, 4)), np.zeros(0)) for image_id in (4, 7, 139, 285)]


def skip(guard, steps, loss=1.0):
    for step in range(steps):
        guard.check(step + 1, loss, False, 0.01, [7])


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_a_run_in_fp32(loss):
    with pytest.raises(UserError) as error:
        DivergenceGuard(False, RECORDS).check(12, loss, False, 0.0125, [139, 285])
    sentence = str(error.value)
    assert f"the loss is {loss} at step 12, with learning rate 0.0125 and the images images/139.jpg, images/285.jpg;" in sentence
    assert "\n" not in sentence


def test_in_mixed_precision_it_is_a_skipped_step():
    guard = DivergenceGuard(True, RECORDS)
    skip(guard, 20, math.nan)
    with pytest.raises(UserError, match=r"21 steps in a row .* at step 21, with learning rate 0.01 and the images images/4.jpg;"):
        guard.check(21, math.nan, False, 0.01, [4])


@pytest.mark.parametrize("mix", [True, False])
def test_a_step_that_counts_ends_the_row(mix):
    guard = DivergenceGuard(mix, RECORDS)
    skip(guard, 20)
    guard.check(21, 1.0, True, 0.01, [7])
    skip(guard, 20)
    with pytest.raises(UserError, match="21 steps in a row"):
        skip(guard, 1)
