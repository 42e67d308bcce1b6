"""The parts of the network that are run alone, in the order of a step; adding one is a function and a line of PARTS."""
from __future__ import annotations

from typing import Callable, NamedTuple

import numpy as np
from mindspore import Parameter, Tensor, nn

from src.config import with_settings
from src.run.distributed import SingleProcess
from src.train.step import TrainStep, set_learning_rate
from tools.device_check.bench import (
    LARGE,
    NUM_CLASSES,
    SMALL,
    Bench,
    annotated_boxes,
    boxes_in,
    distinct,
    priorities,
    rng_of,
    uniform,
)

# The largest error beside the stored numbers that is taken for rounding, relative to the largest number of the tensor.
EXACT = 1e-5      # what adds, multiplies and compares in fp32
ON_DEVICE = 1e-4  # the same where exponentials and logarithms may be less exact
PRODUCTS = 1e-3   # convolutions and matrix products in fp32
DEEP = 3e-2       # gradients of R50: a ReLU whose input rounds to the other side of 0 changes them
# Products of factors of 10 or 11 bits: fp16, and what Ascend (HF32) and GPU (TF32) do in fp32 by default. About twice the errors
# of --mix True on the CPU, 6e-4 for layers without a ReLU, 6e-2 with one or two, 0.3 for R50. What is wrong is near 1.
COARSE, COARSE_RELU, COARSE_DEEP = 2e-3, 1e-1, 6e-1


class Part(NamedTuple):
    """A cell and what it is run on.

    Attributes:
        cell: from `inputs` to a tensor or a tuple of tensors.
        inputs: NumPy arrays, and tuples of such.
        differentiable: whether gradients of the floating-point outputs are computed, of the weights and of the inputs `wanted`.
        wanted: numbers of the inputs, tuples counted as so many.
        changed: parameters that the cell changes, which are compared in the place of outputs.
        names: of the outputs.
    """
    cell: nn.Cell
    inputs: tuple
    differentiable: bool = False
    wanted: tuple[int, ...] = ()
    changed: tuple[Parameter, ...] = ()
    names: tuple[str, ...] = ()


class Entry(NamedTuple):
    """A line of PARTS.

    Attributes:
        build: function that gives the part.
        settings: of the detector that it is taken from, and of its inputs.
        tolerance: the largest error in fp32.
        coarse: with coarse products.
        like: name of the part with whose inputs and stored numbers this one runs, where it is another.
    """
    build: Callable[[Bench, np.random.Generator], Part]
    settings: dict
    tolerance: float
    coarse: float
    like: str = ""


class SumOfDetections(nn.Cell):
    """The sums of the scores, and of the boxes times their scores, of an InferenceForward: rounding may change the order."""

    def __init__(self, forward: nn.Cell):
        super().__init__(auto_prefix=False)
        self.forward = forward

    def construct(self, image, valid_size):
        boxes, scores = self.forward(image, valid_size)
        return scores.sum(1), (boxes * scores.expand_dims(3)).sum(1)


def _image(bench, rng):
    """Noise (B, H, W, 3) uint8 with padding below and at the right, and valid_size (B, 2)."""
    height, width = bench.canvas
    valid = np.tile(np.array((height - 32, width - 64), np.float32), (bench.cfg.batch_size, 1))
    image = rng.integers(0, 256, (bench.cfg.batch_size, height, width, 3), dtype=np.uint8)
    image[:, height - 32:], image[:, :, width - 64:] = 0, 0
    return image, valid


def _levels(bench, rng):
    shapes = bench.level_shapes([bench.cfg.backbone.out_channels] * 5, bench.cfg.rpn_head.anchor_generator.strides)
    return tuple(uniform(rng, shape) for shape in shapes)


def preprocess(bench, rng):
    return Part(bench.forward.preprocess, _image(bench, rng))


def backbone(bench, rng):
    return Part(bench.network.backbone, (uniform(rng, (bench.cfg.batch_size, 3, *bench.canvas), 2),), True)


def fpn(bench, rng):
    shapes = bench.level_shapes(bench.network.backbone.out_channels, [4, 8, 16, 32])
    return Part(bench.network.fpn, (tuple(uniform(rng, shape) for shape in shapes),), True, (0, 1, 2, 3))


def rpn_head(bench, rng):
    return Part(bench.network.rpn_head, (_levels(bench, rng),))  # without a gradient, as in training


def rpn_at_anchors(bench, rng):
    rpn, batch = bench.cfg.rpn_head, bench.cfg.batch_size
    number = rpn.rpn_label_assignment.rnp_sample_batch
    index = rng.integers(0, bench.forward.num_anchors, (batch, number)).astype(np.int32)
    patches = uniform(rng, (batch, bench.cfg.backbone.out_channels, 3, 3 * number))
    return Part(bench.forward.anchor_head, (index, patches), True, (1,))


def proposals(bench, rng):
    batch, anchors = bench.cfg.batch_size, bench.forward.anchors.asnumpy()
    deltas = uniform(rng, (batch, len(anchors), 4), 0.5)
    return Part(bench.forward.propose, (anchors, distinct(rng, (batch, len(anchors)), 8), deltas, _image(bench, rng)[1]))


def anchor_sampler(bench, rng):
    boxes, _, mask = annotated_boxes(rng, bench)
    anchors = bench.forward.anchors.asnumpy()
    return Part(bench.forward.sample_anchors, (anchors, boxes, mask, priorities(rng, len(boxes), len(anchors))))


def roi_sampler(bench, rng):
    boxes, labels, mask = annotated_boxes(rng, bench)
    batch, number = len(boxes), bench.forward.num_proposals
    rois = boxes_in(rng, bench.canvas, batch, number)
    rois[:, :64] = np.tile(boxes[:, :8], (1, 8, 1)) + uniform(rng, (batch, 64, 4), 8)
    valid = np.arange(number) < number - 50
    return Part(bench.forward.sample_rois, (rois, np.tile(valid, (batch, 1)), boxes, labels, mask,
                                            priorities(rng, batch, number + boxes.shape[1])))


def roi_align(bench, rng):
    """The RoIs, and the patches around sampled anchors, as training takes them from the pyramid."""
    batch, cfg = bench.cfg.batch_size, bench.cfg
    levels = _levels(bench, rng)
    rois = boxes_in(rng, bench.canvas, batch, cfg.bbox_head.bbox_assigner.rois_per_batch)
    number = cfg.rpn_head.rpn_label_assignment.rnp_sample_batch
    level = rng.integers(0, len(levels), (batch, number)).astype(np.int32)
    y, x = (np.minimum(rng.integers(0, 10_000, level.shape), np.array([feature.shape[axis] for feature in levels])[level] - 1)
            .astype(np.int32) for axis in (2, 3))
    return Part(bench.forward.features, (levels, rois, level, y, x), True, (0, 1, 2, 3))


def box_head(bench, rng):
    count = bench.cfg.batch_size * bench.cfg.bbox_head.bbox_assigner.rois_per_batch
    return Part(bench.network.box_head, (uniform(rng, (count, bench.cfg.backbone.out_channels, 7, 7)),), True, (0,))


def rpn_loss(bench, rng):
    shape = bench.cfg.batch_size, bench.cfg.rpn_head.rpn_label_assignment.rnp_sample_batch
    positive = rng.random(shape) < 0.3
    arrays = uniform(rng, shape, 4), uniform(rng, (*shape, 4)), uniform(rng, (*shape, 4)), positive, rng.random(shape) < 0.9
    return Part(bench.forward.rpn_loss, arrays, True, (0, 1))


def roi_loss(bench, rng):
    batch, number = bench.cfg.batch_size, bench.cfg.bbox_head.bbox_assigner.rois_per_batch
    rois = boxes_in(rng, bench.canvas, batch, number)
    label = rng.integers(0, NUM_CLASSES + 1, (batch, number)).astype(np.int32)
    logits, deltas = uniform(rng, (batch * number, NUM_CLASSES + 1), 4), uniform(rng, (batch * number, NUM_CLASSES, 4))
    target = rois + uniform(rng, rois.shape, 3)
    return Part(bench.forward.roi_loss, (logits, deltas, rois, target, label, rng.random((batch, number)) < 0.9), True, (0, 1))


def _step(bench):
    """The training step on several micro-batches, whose gradients are neither added up nor reduced in their graph."""
    cfg = with_settings(bench.cfg, {"accumulate_steps": 2, "clip_grads": 10.0})
    return TrainStep(bench.network, cfg, NUM_CLASSES, SingleProcess(), {bench.canvas: bench.forward})


def training(bench, rng):
    """Losses of annotated images and their scaled gradients, in the graph that training runs."""
    batch, boxes, weights = bench.cfg.batch_size, annotated_boxes(rng, bench), bench.network.trainable_params()
    inputs = (*_image(bench, rng), *boxes, priorities(rng, batch, bench.forward.num_anchors),
              priorities(rng, batch, bench.forward.num_proposals + boxes[0].shape[1]))
    return Part(_step(bench).gradients[bench.canvas], inputs,
                names=("losses", *(f"gradient of {weight.name}" for weight in weights)))


def inference(bench, rng):
    return Part(SumOfDetections(bench.inference()), _image(bench, rng))


def update(bench, rng):
    """Unscaling, clipping, momentum and weight decay."""
    weights = bench.network.trainable_params()
    step = _step(bench)
    set_learning_rate(step.optimizer, 1.0)
    gradients = tuple(uniform(rng_of(weight.name + " gradient"), weight.shape, 25.6) for weight in weights)
    return Part(step.update, gradients, changed=tuple(weights))


PARTS = {
    "preprocess": Entry(preprocess, LARGE, EXACT, ON_DEVICE),
    "backbone": Entry(backbone, LARGE, DEEP, COARSE_DEEP),
    "fpn": Entry(fpn, LARGE, PRODUCTS, COARSE),
    "rpn_head": Entry(rpn_head, LARGE, PRODUCTS, COARSE),
    "rpn_at_anchors": Entry(rpn_at_anchors, LARGE, PRODUCTS, COARSE_RELU),
    "proposals": Entry(proposals, LARGE, EXACT, ON_DEVICE),
    "anchor_sampler": Entry(anchor_sampler, LARGE, EXACT, ON_DEVICE),
    "roi_sampler": Entry(roi_sampler, LARGE, EXACT, ON_DEVICE),
    "roi_align": Entry(roi_align, LARGE, PRODUCTS, COARSE),
    "box_head": Entry(box_head, LARGE, PRODUCTS, COARSE_RELU),
    "rpn_loss": Entry(rpn_loss, LARGE, EXACT, ON_DEVICE),
    "roi_loss": Entry(roi_loss, LARGE, EXACT, ON_DEVICE),
    "training": Entry(training, SMALL, PRODUCTS, COARSE_RELU),
    "training_fp16": Entry(training, {**SMALL, "mix": True}, COARSE_RELU, COARSE_RELU, "training"),
    "inference": Entry(inference, SMALL, PRODUCTS, COARSE_RELU),
    "update": Entry(update, SMALL, EXACT, ON_DEVICE),
}


def tensors_of(inputs: tuple) -> tuple[Tensor, ...]:
    """The arrays of `Part.inputs` as tensors in one row."""
    return tuple(Tensor(array) for value in inputs for array in (value if isinstance(value, tuple) else (value,)))
