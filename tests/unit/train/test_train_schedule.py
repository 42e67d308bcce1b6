"""Schedule in src/train/state.py compared with worked values."""
import logging
import re
from types import SimpleNamespace

import pytest

from src.config import Config, load_config, with_settings
from src.errors import UserError
from src.train.state import Schedule
from tests.helpers.paths import ROOT
from tests.helpers.runs import schedule, settings

LR = {"warmup_step": 100, "warmup_ratio": 0.01, "decay_rate": 0.1, "milestones": [8, 11], "base_batch_size": 0}


@pytest.mark.parametrize(("steps_per_epoch", "changes", "factors"), [
    (1000, {}, {0: 0.01, 1: 0.01 + 0.99 / 100, 50: 0.505, 99: 0.01 + 0.99 * 0.99, 100: 1, 7999: 1, 8000: 0.1, 10999: 0.1,
                11000: 0.01, 50000: 0.01}),
    (60, {"milestones": [1]}, {59: 0.01 + 0.99 * 0.59, 60: 0.1 * (0.01 + 0.99 * 0.6)}),  # warm-up continues after a milestone
    (10, {"warmup_step": 0, "milestones": []}, {0: 1, 1: 1, 1000: 1})])
def test_rate_at_steps(steps_per_epoch, changes, factors):
    plan = schedule(steps_per_epoch, lr=SimpleNamespace(**{**LR, **changes}), lr_init=0.02)
    for step, factor in factors.items():
        assert plan.learning_rate(step) == pytest.approx(0.02 * factor, rel=1e-12)


@pytest.mark.parametrize(("base", "rate"), [(16, 0.03), (0, 0.02)])
def test_the_rate_is_scaled_to_all_images_of_a_step(caplog, base, rate):
    """Three processes with four micro-batches of 2 each make 24 images per step. base_batch_size 0 disables the scaling."""
    caplog.set_level(logging.INFO, logger="faster_rcnn")
    cfg = settings(accumulate_steps=4, lr_init=0.02, lr=SimpleNamespace(**{**LR, "warmup_step": 0, "base_batch_size": base}))
    plan = Schedule(cfg, 5, SimpleNamespace(size=3))
    assert (plan.images_per_step, plan.total_steps) == (24, 15)
    assert plan.learning_rate(0) == pytest.approx(rate)
    message = "learning rate: 0.02 for 16 images per step, scaled to 0.03 for 24 images per step (lr.base_batch_size=0 "
    assert caplog.text.count(message) == len(caplog.records) == bool(base)


# Shipped configuration -> the epochs after which the learning rate drops, as they were when the files had numbers of epochs.
SHIPPED = {"resnet18_fpn_finetune": [5], "resnet18_fpn_shapes": [4], "resnet50_fpn": [8, 11], "resnet50_fpn_1x": [8, 11],
           "resnet50_fpn_1x_fzbn": [8, 11], "resnet50_fpn_coco_finetune": [8, 11],
           "resnet50_fpn_coco_finetune_cpu": [8, 11], "resnet50_fpn_1x_mindspore_models": [8, 11],
           "resnet50_fpn_2x": [16, 22], "resnet50_fpn_3x": [28, 34], "resnet50_fpn_finetune": [16, 22],
           "resnet50_fpn_finetune_jitter": [24, 33], "resnet50_fpn_torchvision": [8, 11],
           "resnet50_fpn_torchvision_coco": [8, 11], "resnet50_fpn_v2": [8, 11], "resnet50_fpn_v2_coco_finetune": [8, 11],
           "resnet50_fpn_v2_lsj": [352, 384]}


def test_shipped_schedules_drop_after_whole_epochs():
    folder = ROOT / "config" / "faster_rcnn"
    assert {f"faster_rcnn_{name}.yml" for name in SHIPPED} | {"data.yml"} == {path.name for path in folder.iterdir()}
    for name, epochs in SHIPPED.items():
        cfg = with_settings(load_config(folder / f"faster_rcnn_{name}.yml"), {"lr.warmup_step": 0})
        for steps in (7, 997, 14659):  # COCO's 117,266 images in batches of 8
            plan = Schedule(cfg, steps, SimpleNamespace(size=1))
            for passed, epoch in enumerate(epochs):
                before, after = (plan.learning_rate(epoch * steps - 1 + step) for step in (0, 1))
                assert before == pytest.approx(plan.learning_rate(0) * 0.1**passed) and after == pytest.approx(before * 0.1), name


@pytest.mark.parametrize(("milestones", "drops", "reduced"), [
    (["1/3", 0.7], [34, 70], []),  # 33.3 steps: the first step after a third of the training
    ([0.1, "9/10"], [10, 90], []), ([1], [10], ["9"]), ([4, 8], [40, 80], ["6"]), ([5], [50], []), ([12], [], [])])
def test_milestones_are_fractions_or_epochs(caplog, milestones, drops, reduced):
    cfg = with_settings(Config(), {"epochs": 10, "lr": {"milestones": milestones, "warmup_step": 0}})
    plan = Schedule(cfg, 10, SimpleNamespace(size=1))
    rates = [plan.learning_rate(step) for step in range(100)]
    assert [step for step in range(1, 100) if rates[step] != rates[step - 1]] == drops
    assert re.findall(r"(\d+) of 10 epochs have a reduced learning rate", caplog.text) == reduced
    assert len(caplog.records) == len(reduced)


@pytest.mark.parametrize("milestones", [[1, "2/3"], ["11/12", "2/3"], [0.1, "1/10"], [2, 1], [8.0], ["3/2"], ["1/0"], ["a"], [0]])
def test_milestones_that_are_refused(milestones):
    with pytest.raises(UserError, match=r"lr.milestones must be an ascending list of epochs \(whole numbers\), or of fractions"):
        with_settings(Config(), {"lr.milestones": milestones})


def test_when_checkpoints_and_evaluations_are_due():
    plan = schedule(5, epochs=5, eval_interval=2, save_interval_steps=3)
    assert (plan.images_per_step, plan.total_steps) == (2, 25)
    assert [plan.position(done) for done in (0, 4, 5, 12)] == [(0, 0), (0, 4), (1, 0), (2, 2)]
    assert [done for done in range(1, 12) if plan.ends_epoch(done)] == [5, 10]
    assert [done for done in range(1, 12) if plan.saves_inside_epoch(done)] == [3, 6, 9]
    # Every second epoch, and the last epoch.
    assert [epoch for epoch in range(6) if plan.evaluates(epoch)] == [2, 4, 5]
    assert not any(schedule(5).saves_inside_epoch(done) for done in range(1, 12))
