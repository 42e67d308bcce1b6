"""src/train/schedule.py against worked values."""
import logging
from types import SimpleNamespace

import pytest

from src.train.schedule import learning_rate, scaled_base_rate

LR = SimpleNamespace(warmup_step=100, warmup_ratio=0.01, decay_rate=0.1, milestones=[8, 11], base_batch_size=16)


def settings(base):
    return SimpleNamespace(lr_init=0.02, lr=SimpleNamespace(base_batch_size=base))


@pytest.mark.parametrize(("step", "factor"), [
    (0, 0.01), (1, 0.01 + 0.99 / 100), (50, 0.505), (99, 0.01 + 0.99 * 0.99), (100, 1), (7999, 1),
    (8000, 0.1), (10999, 0.1), (11000, 0.01), (50000, 0.01)])
def test_rate_at_step(step, factor):
    assert learning_rate(0.02, LR, 1000, step) == pytest.approx(0.02 * factor, rel=1e-12)


def test_warm_up_goes_on_over_a_milestone():
    lr = SimpleNamespace(**{**vars(LR), "milestones": [1]})
    assert learning_rate(1.0, lr, 60, 59) == pytest.approx(0.01 + 0.99 * 0.59)
    assert learning_rate(1.0, lr, 60, 60) == pytest.approx(0.1 * (0.01 + 0.99 * 0.6))


def test_neither_warm_up_nor_milestones():
    lr = SimpleNamespace(warmup_step=0, warmup_ratio=0.5, decay_rate=0.1, milestones=[])
    assert [learning_rate(0.3, lr, 10, step) for step in (0, 1, 1000)] == [0.3] * 3


def test_rate_is_scaled_to_the_images_of_a_step(caplog):
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    assert scaled_base_rate(settings(16), 2) == pytest.approx(0.0025)
    message = caplog.records[-1].getMessage()
    for part in ("0.02 for 16", "0.0025 for 2", "lr.base_batch_size=0"):
        assert part in message


def test_base_batch_size_0_never_scales(caplog):
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    assert scaled_base_rate(settings(0), 2) == 0.02
    assert not caplog.records
