"""src/models/rpn.py compared with an independent implementation in NumPy."""
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore import Tensor

from src.models import rpn
from src.models.rpn import ProposalGenerator
from tests.helpers.ascend_operators import top_k_of_910a

LEVEL_SIZES = (60, 24, 5)
CANVAS = (110, 128)


def iou(box, others):
    width = np.clip(np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0]), 0, None)
    height = np.clip(np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1]), 0, None)
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    union = (box[2] - box[0]) * (box[3] - box[1]) + areas - width * height
    return width * height / np.maximum(union, 1e-9)


def greedy(boxes, threshold):
    """Return the indices of boxes, sorted by decreasing score, that NMS keeps."""
    kept = []
    for i, box in enumerate(boxes):
        if not len(kept) or iou(box, boxes[kept]).max() <= threshold:
            kept.append(i)
    return kept


def propose_image(anchors, logits, deltas, size, cfg):
    """Return boxes (n, 4) of one image of `size` (height, width)."""
    found, first = [], 0
    size = np.array(CANVAS) - 1 if cfg.clip_to == "canvas" else size
    for count in LEVEL_SIZES:
        order = first + np.argsort(-logits[first:first + count], kind="stable")
        first += count
        side = anchors[order, 2:] - anchors[order, :2]
        centre = (anchors[order, :2] + anchors[order, 2:]) / 2 + deltas[order, :2] * side
        side = side * np.exp(np.minimum(deltas[order, 2:], np.log(1000 / 16)))
        limit = np.array([size[1], size[0]] * 2)
        boxes = np.clip(np.concatenate((centre - side / 2, centre + side / 2), 1), 0, limit)
        large = (boxes[:, 2:] - boxes[:, :2] >= cfg.min_size).all(1)
        enter = np.arange(count) < cfg.pre_nms_top_n
        if cfg.drop_small_first:
            enter = np.cumsum(large) <= cfg.pre_nms_top_n
        boxes, scores = boxes[large & enter], logits[order][large & enter]
        found += [(boxes[i], scores[i]) for i in greedy(boxes, cfg.nms_thresh)]
    found.sort(key=lambda pair: -pair[1])
    boxes = np.array([box for box, _ in found[:cfg.post_nms_top_n]]).reshape(-1, 4)
    return boxes if cfg.joint_nms_thresh is None else boxes[greedy(boxes, cfg.joint_nms_thresh)]


def settings(**changed):
    return SimpleNamespace(**{"min_size": 8.0, "nms_thresh": 0.6, "pre_nms_top_n": 30, "post_nms_top_n": 40,
                              "drop_small_first": False, "joint_nms_thresh": None, "clip_to": "image", **changed})


def random_input(seed, batch=2):
    """Return crowded anchors, distinct scores, and deltas of which some move boxes out of the image."""
    rng = np.random.default_rng(seed)
    number = sum(LEVEL_SIZES)
    start = rng.uniform(-20, 90, (number, 2))
    anchors = np.concatenate((start, start + rng.uniform(10, 50, (number, 2))), 1).astype(np.float32)
    logits = rng.permuted(np.tile(np.linspace(-3, 3, number), (batch, 1)), axis=1).astype(np.float32)
    deltas = rng.normal(0, 0.4, (batch, number, 4)).astype(np.float32)
    deltas[:, ::17] *= 10
    return anchors, logits, deltas


def run(cfg, anchors, logits, deltas, sizes, level_sizes=LEVEL_SIZES):
    outputs = ProposalGenerator(cfg, level_sizes, CANVAS)(*(Tensor(np.float32(a)) for a in (anchors, logits, deltas, sizes)))
    return tuple(output.asnumpy() for output in outputs)


@pytest.mark.usefixtures("graph_mode")
@pytest.mark.parametrize(("changed", "without"), [
    ({}, None),
    ({"post_nms_top_n": 7, "min_size": 0.0}, None),
    ({"min_size": 500.0, "post_nms_top_n": 5}, {"post_nms_top_n": 5}),     # no box is large enough
    ({"post_nms_top_n": 1000, "pre_nms_top_n": 1000}, {}),                 # more than there are
    ({"joint_nms_thresh": 0.5}, {}),
    ({"clip_to": "canvas"}, {}),
    ({"joint_nms_thresh": 0.3, "clip_to": "canvas", "post_nms_top_n": 20}, {"post_nms_top_n": 20}),
    ({"min_size": 25.0, "pre_nms_top_n": 8, "drop_small_first": True}, {"min_size": 25.0, "pre_nms_top_n": 8})], ids=str)
def test_equals_independent_implementation(changed, without):
    """The settings `without` a feature give other proposals, so each case shows its feature."""
    anchors, logits, deltas = random_input(4)
    sizes, cfg = [[100, 120], [64, 70]], settings(**changed)
    boxes, valid = run(cfg, anchors, logits, deltas, sizes)
    assert boxes.shape == (2, min(cfg.post_nms_top_n, sum(min(cfg.pre_nms_top_n, size) for size in LEVEL_SIZES)), 4)
    for image in range(2):
        expected = propose_image(anchors, logits[image], deltas[image], sizes[image], cfg)
        np.testing.assert_allclose(boxes[image][valid[image]], expected, rtol=1e-4, atol=1e-3)
        if cfg.joint_nms_thresh is None:
            np.testing.assert_array_equal(valid[image], np.arange(len(valid[image])) < len(expected))
            np.testing.assert_array_equal(boxes[image, len(expected):], 0)
        if without is not None:
            other = propose_image(anchors, logits[image], deltas[image], sizes[image], settings(**without))
            assert other.shape != expected.shape or not np.allclose(other, expected)


@pytest.mark.parametrize("drop_small_first", [False, True])
def test_on_910a_rejected_boxes_are_not_valid(monkeypatch, drop_small_first):
    """With logits that are exact in float16 and a float16 TopK, the proposals are the same as in float32."""
    anchors, _, deltas = random_input(6)
    logits = np.random.default_rng(6).permuted(np.tile(np.arange(len(anchors)) / 16, (2, 1)), axis=1)
    cfg = settings(min_size=20.0, pre_nms_top_n=12, drop_small_first=drop_small_first)
    expected = run(cfg, anchors, logits, deltas, [[100, 120], [64, 70]])
    monkeypatch.setattr(rpn, "TOP_K", top_k_of_910a("falling"))
    found = run(cfg, anchors, logits, deltas, [[100, 120], [64, 70]])
    assert not expected[1].all()
    for array, other in zip(found, expected):
        np.testing.assert_array_equal(array, other)


def test_equal_scores_leave_no_overlapping_proposals():
    """float16 logits are often equal. Whatever their order, no two proposals of a level overlap."""
    rng = np.random.default_rng(3)
    start = rng.uniform(0, 60, (200, 2))
    anchors = np.concatenate((start, start + rng.uniform(15, 50, (200, 2))), 1)
    logits = rng.integers(0, 4, (1, 200))
    cfg = settings(pre_nms_top_n=200, post_nms_top_n=200)
    boxes, valid = run(cfg, anchors, logits, np.zeros((1, 200, 4)), [[120, 120]], level_sizes=(200,))
    kept = boxes[0][valid[0]]
    overlaps = np.array([iou(box, kept) for box in kept]) - np.eye(len(kept))
    assert overlaps.max() <= cfg.nms_thresh
    # Every anchor is a proposal or overlaps a proposal.
    assert all(iou(anchor, kept).max() > cfg.nms_thresh - 1e-5 for anchor in anchors)
