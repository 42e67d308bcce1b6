"""Run one part of the detector on a device: python -m tests.device.parts NAME DEVICE OUT

The JSON file OUT gets the seconds of the first run, which compiles the graph, the milliseconds of a later run, and the largest
difference of outputs and gradients from expected.json. Without arguments, the program writes expected.json on the CPU.
"""
from __future__ import annotations

import json
import statistics
import sys
import time
import zlib
from pathlib import Path

from src.run.environment import set_environment

set_environment()  # before MindSpore is imported

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402
from mindspore import ParameterTuple, Tensor, ops  # noqa: E402

from src.config import with_settings  # noqa: E402
from src.config.load import load_config  # noqa: E402
from src.detector import build_empty_detector  # noqa: E402
from src.models.faster_rcnn import InferenceForward, TrainingForward  # noqa: E402
from src.run.device import set_up_device  # noqa: E402
from src.run.distributed import ROOT, join_processes  # noqa: E402
from src.train.parallel import broadcast_parameters  # noqa: E402
from src.train.step import Graph, StepResult, TrainStep  # noqa: E402
from tools.benchmarking.measure import noise_batch  # noqa: E402

CONFIG = ROOT / "config" / "faster_rcnn" / "faster_rcnn_resnet50_fpn_1x.yml"
EXPECTED = Path(__file__).with_name("expected.json")
NUM_CLASSES = 3
SINGLE = {"batch_size": 1, "backbone.name": "det_resnet18", "backbone.pretrained": False, "mix": False,
          "data.target_size": [128, 160]}
# For the whole network. All anchors and proposals are sampled and BatchNorm is fixed. If rounding changes the proposals, a loss
# therefore changes only a little.
WHOLE = {**SINGLE, "data.target_size": [64, 96], "backbone.frozen_bn": True, "backbone.out_channels": 64,
         "rpn_head.feat_channel": 64, "rpn_head.train_proposal.post_nms_top_n": 200, "rpn_head.test_proposal.post_nms_top_n": 200,
         "rpn_head.rpn_label_assignment.rnp_sample_batch": 100_000, "rpn_head.rpn_label_assignment.fg_fraction": 1.0,
         "bbox_head.head.in_channel": 64, "bbox_head.head.out_channel": 256,
         "bbox_head.bbox_assigner.rois_per_batch": 100_000, "bbox_head.bbox_assigner.fg_fraction": 1.0}
# Tolerances relative to the largest number of a tensor: in fp32 on the CPU, and on other devices, where the factors of products
# have 10 or 11 bits in fp16, and by default in fp32 as well: Ascend (HF32) and GPU (TF32).
EXACT = 1e-5, 1e-4       # no convolutions; on devices, exponentials and logarithms are less exact
PRODUCTS = 1e-3, 2e-3    # convolutions and matrix products
RELU = 1e-3, 1e-1        # gradients through ReLU, where rounding may change the sign of an input
PARTS = {**dict.fromkeys(("preprocess", "proposals", "anchor_sampler", "roi_sampler", "rpn_loss", "roi_loss"), (SINGLE, EXACT)),
         **dict.fromkeys(("fpn", "roi_align"), (SINGLE, PRODUCTS)), **dict.fromkeys(("rpn_head", "box_head"), (SINGLE, RELU)),
         "backbone": ({**SINGLE, "backbone.name": "det_resnet50"}, (3e-2, 6e-1)), "inference": (WHOLE, RELU),
         "training": ({**WHOLE, "accumulate_steps": 2}, RELU), "training_on_two": (WHOLE, RELU),
         "training_mixed": ({**WHOLE, "accumulate_steps": 2, "mix": True}, RELU)}


def uniform(rng, shape, scale=1.0):
    return (2 * rng.random(shape, np.float32) - 1) * np.float32(scale)


def weights_of(name, shape):
    """Return the values of a parameter. Outputs are about as large as inputs, and residuals are small, as in trained networks."""
    noise = uniform(np.random.default_rng(zlib.crc32(name.encode())), shape)
    if len(shape) > 1:
        return noise * np.float32(np.sqrt(3 / np.prod(shape[1:])))
    scale = 0.2 if name.endswith((".bn2.gamma", ".bn3.gamma")) else 1
    return (1 + noise / 10) * np.float32(scale) if name.endswith(("gamma", "moving_variance")) else noise / 20


def single_parts(cfg, network, batch):
    """Return {name: (cell, inputs, indices of the inputs that get gradients, number of leading inputs that form a tuple)}.

    The indices are None for parts without a gradient in training.
    """
    [canvas], channels, rng = cfg.data.canvases, cfg.backbone.out_channels, np.random.default_rng(1)
    # On the CPU, too, as devices compute it: with the RPN's loss of all anchors.
    forward = TrainingForward(network, with_settings(cfg, {"device_target": "Ascend"}), NUM_CLASSES, canvas).set_train()
    anchors, number, boxes = forward.anchors.asnumpy(), forward.num_proposals, batch.boxes.asnumpy()

    def noise(*shape, scale=1.0):
        return uniform(rng, shape, scale)

    def levels(depths, strides):
        return [noise(1, depth, *(-(-side // stride) for side in canvas)) for depth, stride in zip(depths, strides)]

    def order(count):  # (1, count) without equal numbers, so that their order is certain
        return rng.permutation(count)[None].astype(np.float32)

    def random_boxes(count):
        sides = np.array(canvas[::-1]) * np.exp(rng.uniform(np.log(0.03), np.log(0.7), (1, count, 2)))
        corner = rng.uniform(0, 1, sides.shape) * (canvas[::-1] - sides)
        return np.concatenate((corner, corner + sides), 2).astype(np.float32)

    pyramid, rois = levels([channels] * 5, [4, 8, 16, 32, 64]), random_boxes(number)
    candidates = np.concatenate((np.tile(boxes[:, :6], (1, 10, 1)) + noise(1, 60, 4, scale=8), rois[:, 60:]), 1)
    labels, size = rng.integers(0, NUM_CLASSES + 1, (1, number)).astype(np.int32), batch.valid_size - 32
    return {
        "preprocess": (forward.preprocess, [batch.image, size], None, 0),
        "backbone": (network.backbone, [noise(1, 3, *canvas, scale=2)], (), 0),
        "fpn": (network.fpn, levels(network.backbone.out_channels, [4, 8, 16, 32]), (0, 1, 2, 3), 4),
        "rpn_head": (network.rpn_head, pyramid, (0, 1, 2, 3, 4), 5),
        "proposals": (forward.propose, [anchors, order(len(anchors)) * np.float32(16 / len(anchors)) - 8,
                                        noise(1, len(anchors), 4, scale=0.5), size], None, 0),
        "anchor_sampler": (forward.sample_anchors, [anchors, boxes, batch.mask, order(len(anchors))], None, 0),
        "roi_sampler": (forward.sample_rois, [candidates, np.arange(number)[None] < number - 50, boxes, batch.labels, batch.mask,
                                              order(number + boxes.shape[1])], None, 0),
        "roi_align": (network.roi_align, [*pyramid, rois[:, :128]], (0, 1, 2, 3), 5),
        "box_head": (network.box_head, [noise(64, channels, 7, 7)], (0,), 0),
        "rpn_loss": (forward.rpn_loss, [noise(1, 256, scale=4), noise(1, 256, 4), noise(1, 256, 4), noise(1, 256) > 0.4,
                                        noise(1, 256) < 0.8], (0, 1), 0),
        "roi_loss": (forward.roi_loss, [noise(number, NUM_CLASSES + 1, scale=4), noise(number, NUM_CLASSES, 4), rois,
                                        rois + noise(1, number, 4, scale=3), labels, noise(1, number) < 0.8], (0, 1), 0),
    }


def inference(cfg, network, batch):
    """Return a function that computes sums over the proposals, because rounding may change the order of proposals."""
    forward = InferenceForward(network, cfg, cfg.data.canvases[0]).set_train(False)

    def run():
        boxes, scores = forward(batch.image, batch.valid_size - 32)
        return {"output scores": scores.sum(1), "output boxes": (boxes * scores.expand_dims(3)).sum(1)}
    return run


def training(cfg, network, batch, group):
    """Return a function that runs a step on two images: in sequence, or one on each of two ranks, with the same result.

    It returns {name: tensor} of losses, weights and momenta. The momenta of the first step are gradients with weight decay.
    """
    step = TrainStep(network, cfg, NUM_CLASSES, group)
    broadcast_parameters(group, step.parameters())
    image = batch.image.asnumpy()
    batches = [batch, batch._replace(image=Tensor(image[:, ::-1, ::-1].copy()))]

    def run():
        result = StepResult.read(step(batches if group.size == 1 else [batches[group.rank]], 0.001, 0))
        parameters = (*step.optimizer.parameters, *step.optimizer.moments)
        return {"losses": Tensor(result.losses), **{parameter.name: parameter for parameter in parameters}}
    return run


def measure(name: str, device: str, group) -> dict:
    """Run a part forward and, if it has a gradient, backward, and return the dict of `record`."""
    # On the CPU, the compilation of whole networks would take most of the time; other tests do it.
    mode = int(device == "CPU" and name in ("inference", "training_on_two"))
    settings = {"device_target": device, "ms_mode": mode, **PARTS[name][0]}
    cfg = set_up_device(load_config(CONFIG, [(key, value, "tests/device") for key, value in settings.items()]), group)
    network, batch, result = build_empty_detector(cfg, NUM_CLASSES), noise_batch(cfg, NUM_CLASSES), {}
    for parameter in network.get_parameters():
        parameter.set_data(Tensor(weights_of(parameter.name, parameter.shape)))
    if name.startswith(("training", "inference")):
        record(result, inference(cfg, network, batch) if name == "inference" else training(cfg, network, batch, group))
        return result
    cell, inputs, wanted, leading = single_parts(cfg, network, batch)[name]
    is_training, weights = cell.training, cell.trainable_params()
    inputs = [value if isinstance(value, Tensor) else Tensor(value) for value in inputs]

    def forward(*tensors):
        outputs = cell(tensors[:leading], *tensors[leading:]) if leading else cell(*tensors)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    graph = Graph("forward", forward, cell=cell).set_train(is_training)
    outputs = record(result, lambda: {f"output {i}": output for i, output in enumerate(graph(*inputs))})
    if wanted is None:
        return result
    factors = [(i, Tensor(weights_of(f"factor {i}", output.shape))) for i, output in enumerate(outputs.values())
               if output.dtype == ms.float32]

    def weighted_sum(*tensors):
        outputs, total = forward(*tensors), 0.0
        for i, factor in factors:
            total += (outputs[i] * factor).sum()
        return total

    graph = Graph("weighted sum", weighted_sum, cell=cell).set_train(is_training)
    gradients = ops.grad(graph, wanted or None, ParameterTuple(weights) if weights else None)
    names = [f"gradient of input {i}" for i in wanted] + [f"gradient of {weight.name}" for weight in weights]
    record(result, lambda: dict(zip(names, flat(gradients(*inputs)))))
    return result


def flat(tensors):
    return [tensors] if isinstance(tensors, Tensor) else [leaf for item in tensors for leaf in flat(item)]


def record(result, run):
    """Call `run`, a function that returns {name: tensor}, at least twice, and return the last tensors.

    `result` gets numbers (the root mean square and some elements of each tensor after the first call, by name), and appends the
    seconds of the first call to first_s and the median milliseconds of the later calls to later_ms.
    """
    seconds = []
    while len(seconds) < 2 or (len(seconds) < 6 and sum(seconds[1:]) < 0.1):
        start = time.perf_counter()
        tensors = run()
        min(tensors.values(), key=lambda tensor: tensor.size).asnumpy()  # waits for the end of the graph
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1:
            result.setdefault("numbers", {}).update((name, summary(tensor.asnumpy(), name)) for name, tensor in tensors.items())
    result.setdefault("first_s", []).append(seconds[0])
    result.setdefault("later_ms", []).append(1000 * statistics.median(seconds[1:]))
    return tensors


def summary(array, name):
    values = array.reshape(-1).astype(np.float64)
    count = 64 if name.startswith(("output", "losses", "gradient of input")) else 8
    picked = values[np.linspace(0, values.size - 1, min(count, values.size)).astype(int)]
    return [float(f"{value:.7g}") for value in (np.sqrt(np.mean(values**2)), *picked)]


def main():
    group = join_processes()
    if len(sys.argv) == 1:
        names = [name for name in PARTS if not name.startswith("training_")]
        rows = [f'"{name}": {json.dumps(measure(name, "CPU", group)["numbers"])}' for name in names]
        EXPECTED.write_text("{\n" + ",\n".join(rows) + "\n}\n")
        return
    name, device, out = sys.argv[1:]
    result = measure(name, device, group)
    numbers = result.pop("numbers")
    everyone = group.gather(numbers)
    if group.rank == 0:
        assert all(own == numbers for own in everyone), "the ranks have different weights"
        expected = json.loads(EXPECTED.read_text())["training" if name.startswith("training") else name]
        errors = {key: np.abs(np.subtract(numbers[key], values)).max() / max(np.abs(values).max(), 1e-30)
                  for key, values in expected.items()}
        error, where = max((float(np.nan_to_num(error, nan=np.inf)), key) for key, error in errors.items())
        tolerance = PARTS[name][1][device != "CPU"]
        Path(out).write_text(json.dumps({**result, "error": error, "tolerance": tolerance, "note": where if error else ""}))


if __name__ == "__main__":
    main()
