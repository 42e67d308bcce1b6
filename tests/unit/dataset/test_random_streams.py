"""src/dataset/batching.py: different uses of random numbers in a run have different random streams."""
import json
from types import SimpleNamespace

import numpy as np

from src.dataset.annotations import load_coco
from src.dataset.loader import TrainLoader
from src.dataset.shapes import ensure_shapes
from src.train.sampling import SamplingPriorities


def test_all_generators_of_a_run_start_from_different_states(write_images, make_cfg, monkeypatch, tmp_path):
    """Generated images, two epochs with repeated records, their augmentation and the sampling of their steps, with one seed.

    NumPy pads a seed with zeros: the seeds [7, 0] and [7, 0, 0, 0] have the same state.
    """
    states, default_rng = [], np.random.default_rng

    def noted(seed):
        rng = default_rng(seed)
        states.append(json.dumps(rng.bit_generator.state))
        return rng

    loader = TrainLoader(load_coco(*write_images(4)), make_cfg(item_transforms=({"RandomFlip": {"prob": 0.5}},)))
    monkeypatch.setattr(np.random, "default_rng", noted)
    loader.draw_epoch.cache_clear()
    ensure_shapes(str(tmp_path / "shapes"), 2, 2, 64, 64, seed=loader.cfg.seed)
    canvas = np.empty((64, 64, 3), np.uint8)
    for number in range(2 * loader.steps_per_epoch):
        for draw in loader.plan(number):
            loader.row(draw, canvas)
            loader.row(draw._replace(repeat=1), canvas)
    sampling = SamplingPriorities(SimpleNamespace(
        **vars(loader.cfg), rpn_head=SimpleNamespace(rpn_label_assignment=SimpleNamespace(use_random=True)),
        bbox_head=SimpleNamespace(bbox_assigner=SimpleNamespace(use_random=True), add_gt_as_proposals=True)))
    for step in range(4):
        sampling._draw(step, 50, 20, 4, 0)
    # Images, epochs, augmentations of 8 records and the same number of repetitions, and rows of 4 steps.
    assert len(states) == 4 + 2 + 16 + 8
    assert len(set(states)) == len(states)
