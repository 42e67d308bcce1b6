"""Measurements of tools/benchmark.py: input batches, training, inference, the parts of a step, other programs, data pipeline."""
from __future__ import annotations

import argparse
import contextlib
import csv
import io
import itertools
import logging
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np
from mindspore import Tensor
from mindspore.profiler import ProfilerActivity, profile, tensorboard_trace_handler

from src.checkpoint import Checkpoint, load_weights, read_checkpoint
from src.config import Config, with_settings
from src.dataset.annotations import load_coco
from src.dataset.loader import Batch, EvalLoader, TrainLoader
from src.dataset.resize import fitted_size
from src.dataset.shapes import ensure_shapes
from src.dataset.splits import open_training_set, open_validation_set
from src.dataset.transforms import pad_boxes, padding_of
from src.detector import Predictor, build_detector
from src.errors import UserError
from src.evaluation import detections
from src.models.faster_rcnn import FasterRCNN, InferenceForward
from src.run.compile_cache import inference_graphs, training_graphs, use_compile_cache
from src.run.distributed import Group
from src.train.parallel import broadcast_parameters
from src.train.step import StepResult, TrainStep
from tools.benchmarking import peer_process

logger = logging.getLogger("faster_rcnn")

# Boxes per noise image, and their number as a loader pads it; maximum number of batches of real images.
BOXES, PADDED, MAX_BATCHES = 6, 8, 4
# Attributes of TrainingForward and Graph that hold cells; the names of operators contain them. The first stage is the backbone,
# the pyramid and the RPN head on every cell. RoIAlign includes the patches around sampled anchors, a tenth of its time.
PART_OF_CELL = {
    "preprocess": "preprocess", "features_and_rpn": "first stage", "anchor_head": "RPN", "rpn_loss": "RPN",
    "sample_anchors": "RPN", "propose": "proposals", "roi_align": "RoIAlign", "features": "RoIAlign", "box_head": "heads",
    "roi_loss": "heads", "sample_rois": "heads", "optimizer": "optimizer"}
PARTS = ("preprocess", "first stage", "RPN", "proposals", "RoIAlign", "heads", "backward", "optimizer", "other", "all_reduce")
# Cells that define `bprop`. Operators of `bprop` have these names; operators of `construct` have the name of the caller.
OWN_GRADIENT = ("-_Run", "-KernelRoIAlignPair")
# The data pipeline reads at least FILES JPEG files of this size. A round has IMAGES images.
HEIGHT, WIDTH, FILES, IMAGES, ROUNDS = 480, 640, 64, 200, 5
# Tolerances in pixels and score, and the share of proposals that may exceed them. Rounding to 8 bits changes the order of
# proposals and therefore which proposals are kept, so the check of rounded outputs only rules out nonsense.
EXACT, ROUNDED = ((0.1, 1e-3), 0.01), ((4.0, 0.05), 0.5)


def measure_network(args: argparse.Namespace, cfg: Config, group: Group, start: float, environment: dict[str, str]) -> dict:
    """Return the results of training and inference that args.what contains. `start` is the time of the program's start, by
    time.perf_counter, and `environment` has the environment variables for the programs of --compare."""
    results: dict = {}
    parts = [part for part in args.what if part != "data"]
    checkpoint = read_checkpoint(args.weights) if args.weights else None
    num_classes = checkpoint.num_classes if checkpoint else args.classes
    batches = real_batches(cfg, group, checkpoint, parts) if checkpoint else dict.fromkeys(parts, [noise_batch(cfg, num_classes)])
    step, canvases = None, cfg.data.canvases
    graphs = (training_graphs(canvases, canvases, cfg.accumulate_steps, group.size) if "train" in parts
              else inference_graphs(canvases))
    use_compile_cache(cfg, graphs, num_classes, padding_size=batches[parts[0]][0].boxes.shape[1])
    network = build_detector(cfg, num_classes, num_processes=group.size)
    if checkpoint:
        load_weights(network, checkpoint)
    if "train" in parts:
        step = RepeatedTrainStep(network, cfg, num_classes, group, batches["train"])
        step()
        results["first_step_s"] = time.perf_counter() - start
        results["train_step_s"] = median_seconds(step, args.steps)
    if "predict" in parts:
        if checkpoint:
            load_weights(network, checkpoint)  # training may have changed BatchNorm's statistics
        predictor, infer, stream = Predictor(network, cfg), cfg.infer, itertools.cycle(batches["predict"])

        def detect():
            batch = next(stream)
            for outputs in zip(*predictor(batch.image, batch.valid_size)):
                detections.select_detections(*outputs, infer.conf_threshold, infer.nms_threshold, infer.max_box_num)
        results["predict_s"] = median_seconds(detect, args.steps)
    results["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux returns KiB
    if args.compare:
        results["comparison"] = compare(args.compare, network, cfg, predictor, batches["predict"], args.steps, environment)
    if step and cfg.device_target == "CPU" and cfg.ms_mode == 0:
        network.set_train()
        results["breakdown"] = break_down(step)
    if step and step.skipped:
        logger.warning("%d of %d steps overflowed: choose another --ms_loss_scaler_value", step.skipped, step.count)
    return results


def noise_batch(cfg: Config, num_classes: int) -> Batch:
    """Return a batch of normal noise with six boxes per image, the same in every run. The noise of all images is sampled before
    the boxes, image by image with channels first, so that a program in another framework can sample the same numbers."""
    (height, width), rng = cfg.data.canvases[0], np.random.default_rng(0)
    images = np.stack([rng.standard_normal((3, height, width)).astype(np.float32) for _ in range(cfg.batch_size)])
    _, padding_value = padding_of(cfg.data.train_transforms.item_transforms)
    labels, rows = np.arange(BOXES, dtype=np.int32) % num_classes, []
    for _ in images:
        corner = rng.uniform(0, [width * .6, height * .6], (BOXES, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(20, [width * .4, height * .4], (BOXES, 2))], axis=1)
        rows.append(pad_boxes(boxes.astype(np.float32), labels, PADDED, padding_value))
    pixels = np.clip(np.round(255 * images), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    valid_size = np.tile(np.array((height, width), np.float32), (cfg.batch_size, 1))
    columns = (pixels, valid_size, *map(np.stack, zip(*rows)), np.arange(cfg.batch_size), valid_size.astype(np.int32),
               np.ones_like(valid_size), np.ones(cfg.batch_size, bool))
    return Batch(*(Tensor(np.ascontiguousarray(column)) for column in columns[:5]), *columns[5:])


def real_batches(cfg: Config, group: Group, checkpoint: Checkpoint, parts: list[str]) -> dict[str, list[Batch]]:
    """Return at most MAX_BATCHES batches for train and predict, if in `parts`, as train.py and eval.py read them, or raise a
    UserError if a data set cannot be read or its number of classes differs from the checkpoint's."""
    batches = {}
    for part in parts:
        training = part == "train"
        dataset: Any = open_training_set(cfg, group) if training else open_validation_set(cfg, group, checkpoint.class_names)
        if len(dataset.names) != checkpoint.num_classes:
            raise UserError(f"{dataset.annotation_path} has {len(dataset.names)} classes, but {checkpoint.path} has "
                            f"{checkpoint.num_classes}; give the configuration that it was trained with.")
        loader: Any = TrainLoader(dataset, cfg) if training else EvalLoader(dataset, cfg)
        with contextlib.closing(loader.batches()) as stream:
            batches[part] = list(itertools.islice(stream, MAX_BATCHES))
    return batches


def timed(run: Callable) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def median_seconds(run: Callable, count: int) -> float:
    """Return the median seconds of `count` calls, after one warm-up call."""
    run()
    return statistics.median(timed(run) for _ in range(count))


class RepeatedTrainStep:
    """Runs training steps with the `batches` in turn as micro-batches. `count` is the number of steps so far, and `skipped` the
    number of steps without update because of overflow."""

    def __init__(self, network: FasterRCNN, cfg: Config, num_classes: int, group: Group, batches: list[Batch]):
        self.batches, self.accumulate_steps = itertools.cycle(batches), cfg.accumulate_steps
        self.step = TrainStep(network, cfg, num_classes, group)
        broadcast_parameters(group, self.step.parameters())
        self.smallest = min(self.step.optimizer.parameters, key=lambda parameter: parameter.size)
        self.count = self.skipped = 0

    def __call__(self) -> None:
        """Run one step, including the update."""
        # With learning rate 0, all steps have the same weights and training cannot diverge.
        numbers = self.step(list(itertools.islice(self.batches, self.accumulate_steps)), 0.0, self.count)
        self.smallest.asnumpy()  # the step only launches the update; reading a weight waits for its end
        self.count += 1
        self.skipped += not StepResult.read(numbers).applied


def break_down(step: RepeatedTrainStep) -> dict[str, float]:
    """Return the seconds of a step by PARTS and, with several processes, by the parts of the all-reduce. MindSpore's profiler
    writes its table only on the CPU, and with the names of cells only in graph mode."""
    # The profiler prints its progress on standard output.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        with profile(activities=[ProfilerActivity.CPU], on_trace_ready=tensorboard_trace_handler(folder)):
            step()
        [path] = Path(folder).glob("*/FRAMEWORK/cpu_op_detail_info_*.csv")
        return {**seconds_by_part(path), **step.step.all_reduce.seconds}


def seconds_by_part(path: Path) -> dict[str, float]:
    """Return the seconds by PARTS in the profiler's CSV table of operators, which have names like
    Default/forward-TrainingForward/roi_align-RoIAlign/.../Custom-op0. Operators outside of cells belong to "other"."""
    seconds = dict.fromkeys(PARTS, 0.0)
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            *cells, name = row["full_op_name"].split("/")
            part = next(filter(None, (PART_OF_CELL.get(cell.partition("-")[0]) for cell in cells)), "other")
            if cells[0] == "Gradients" or (name.startswith("Custom-") and cells[-1].endswith(OWN_GRADIENT)):
                part = "backward"
            seconds[part] += float(row["op_total_time(ms)"]) / 1000
    return seconds


def compare(names: list[str], network: FasterRCNN, cfg: Config, predictor: Predictor, batches: list, rounds: int,
            environment: dict[str, str]) -> dict:
    """Measure inference, from images to boxes and scores before per-class NMS, in this program and in peers (keys of PEERS).

    `network` belongs to `predictor`. After a warm-up round, all programs run one of the batches, which have equal shapes, in each
    of the rounds. Each peer runs in a separate process with the variables `environment`: in one process, waiting threads and
    variables set for MindSpore could slow down other programs, because OpenVINO also contains oneDNN.

    Returns:
        Dict with threads; mix, from cfg; seconds, this program's median; peers, a dict by name of dicts with agreement (fields of
        `Agreement`), version, dtype, seconds, and ratio: this program's seconds divided by the peer's.

    Raises:
        UserError: a peer cannot run the network, or its outputs disagree.
    """
    from src.export.agreement import agreement  # imported here to keep it out of the time of the first step

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    tolerances, max_alone = ROUNDED if cfg.mix else EXACT
    inputs = [(batch.image.asnumpy(), batch.valid_size.asnumpy()) for batch in batches]
    seconds: dict[str, list[float]] = {name: [] for name in ("", *names)}  # "" is this program
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = os.path.join(folder, "detector.onnx")
        write_onnx(path, network, cfg, *inputs[0])
        pools = {name: stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), peer_process.load, (
            environment, name, path, threads, "bf16" if cfg.mix else "fp32"))) for name in names}
        for batch, arrays in itertools.islice(itertools.cycle(zip(batches, inputs)), 1 + rounds):
            start = time.perf_counter()
            expected = predictor(batch.image, batch.valid_size)
            seconds[""].append(time.perf_counter() - start)
            for name, pool in pools.items():
                duration, version, dtype, *outputs = run_in(pool, name, *arrays)
                seconds[name].append(duration)
                if name not in results:
                    result = agreement((outputs[0], outputs[1]), expected, tolerances)
                    if not result.holds(max_alone):
                        raise UserError(f"--compare {name}: its outputs differ from this program's, so times cannot be compared: "
                                        f"{result} (required for {1 - max_alone:.0%}); leave {name} out, and report it.")
                    results[name] = {"agreement": result._asdict(), "version": version, "dtype": dtype}
    own, *others = (statistics.median(durations[1:]) for durations in seconds.values())
    for name, median in zip(names, others):
        results[name].update(seconds=median, ratio=own / median)
    return {"threads": threads, "mix": cfg.mix, "seconds": own, "peers": results}


def write_onnx(path: str, network: FasterRCNN, cfg: Config, image: np.ndarray, valid_size: np.ndarray) -> None:
    """Write `network` as an ONNX file that computes in fp32, whatever the precision and kernels of `network`."""
    from src.export.files import write_network

    plain = with_settings(cfg, {"mix": False})
    copy = build_detector(plain, network.box_head.classes.out_channels - 1, pretrained=False)
    weights = {parameter.name: parameter for parameter in network.get_parameters()}
    for parameter in copy.get_parameters():
        parameter.set_data(weights[parameter.name].value())
    write_network(path, InferenceForward(copy, plain, (image.shape[1], image.shape[2])), image, valid_size)


def run_in(pool: ProcessPoolExecutor, name: str, image: np.ndarray, valid_size: np.ndarray) -> tuple:
    """Return the result of `peer_process.run` in a peer's process, for image (B, H, W, 3) uint8 and valid_size (B, 2) float32."""
    try:
        return pool.submit(peer_process.run, image, valid_size).result()
    except Exception as error:  # the programs raise many types
        raise UserError(f"--compare {name} failed ({type(error).__name__}: {error}); leave {name} out.") from error


def measure_pipeline(cfg: Config) -> tuple[float, ...]:
    """Write JPEG files and read them in two ways in turn, both without OpenCV's threads. Return the images per second of
    `TrainLoader`, and of decoding and resizing alone in this process: medians over ROUNDS."""
    size = fitted_size((HEIGHT, WIDTH), cfg.data.canvases[0])[::-1]
    cfg = with_settings(cfg, {"epochs": 1000, "accumulate_steps": 1})  # a round must not be longer than the training
    steps = max(1, IMAGES // cfg.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.join(folder, "shapes")
        ensure_shapes(root, max(FILES, cfg.batch_size), 1, HEIGHT, WIDTH, 0)
        loader: Any = TrainLoader(load_coco(f"{root}/annotations/instances_train2017.json", f"{root}/train2017"), cfg)
        rates = []
        for _ in range(ROUNDS):
            with contextlib.closing(loader.batches()) as stream:
                # Skip the batches that are already in the queues; they would seem infinitely fast.
                next(itertools.islice(stream, 9 + 2 * cfg.prefetch_size, None))
                own = timed(lambda stream=stream: next(itertools.islice(stream, steps - 1, None)))
            records = itertools.islice(itertools.cycle(loader.records), IMAGES)
            plain = timed(lambda records=records: [cv2.resize(cv2.imread(record.path), size) for record in records])
            rates.append((steps * cfg.batch_size / own, IMAGES / plain))
    return tuple(map(statistics.median, zip(*rates)))
