"""Measurements of tools/benchmark.py: input batches, training steps, the parts of a step, and the data pipeline."""
from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np
from mindspore import Tensor
from mindspore.profiler import ProfilerActivity, profile, tensorboard_trace_handler

from src.checkpoint import Checkpoint
from src.config import Config, with_settings
from src.dataset.annotations import load_coco
from src.dataset.loader import Batch, EvalLoader, TrainLoader
from src.dataset.resize import fitted_size
from src.dataset.splits import open_training_set, open_validation_set
from src.dataset.transforms import pad_boxes, padding_of
from src.errors import UserError
from src.models.faster_rcnn import FasterRCNN
from src.run.distributed import Group
from src.train.parallel import broadcast_parameters
from src.train.step import TrainStep

BOXES = 6        # boxes per noise image
MAX_BATCHES = 4  # maximum number of batches of real images
# Attributes of TrainingForward and Update that hold cells; the names of operators contain them. The first stage is the backbone,
# the pyramid and the RPN head on every cell. RoIAlign includes the patches around sampled anchors, a tenth of its time.
PART_OF_CELL = {
    "preprocess": "preprocess", "features_and_rpn": "first stage", "anchor_head": "RPN", "rpn_loss": "RPN",
    "sample_anchors": "RPN", "propose": "proposals", "roi_align": "RoIAlign",
    "features": "RoIAlign", "box_head": "heads", "roi_loss": "heads",
    "sample_rois": "heads", "optimizer": "optimizer"}
PARTS = ("preprocess", "first stage", "RPN", "proposals", "RoIAlign", "heads", "backward", "optimizer", "other", "all_reduce")
# Cells that define `bprop`. Operators of `bprop` have these names; operators of `construct` have the name of the caller.
OWN_GRADIENT = ("-_Run", "-KernelRoIAlignPair")
# The data pipeline reads at least FILES JPEG files of this size. A round has IMAGES images.
HEIGHT, WIDTH, FILES, IMAGES, ROUNDS = 480, 640, 64, 200, 5


def noise_batch(cfg: Config, num_classes: int) -> Batch:
    """Return a batch of normal noise with six boxes per image, the same in every run.

    The noise of all images is sampled before the boxes, image by image with channels first. A program in another framework can
    therefore sample the same numbers.
    """
    (height, width), rng = cfg.data.canvases[0], np.random.default_rng(0)
    images = np.stack([rng.standard_normal((3, height, width)).astype(np.float32) for _ in range(cfg.batch_size)])
    size, padding_value = padding_of(cfg.data.train_transforms.item_transforms)
    labels, rows = np.arange(BOXES, dtype=np.int32) % num_classes, []
    for _ in images:
        corner = rng.uniform(0, [width * .6, height * .6], (BOXES, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(20, [width * .4, height * .4], (BOXES, 2))], axis=1)
        rows.append(pad_boxes(boxes.astype(np.float32), labels, max(size, BOXES), padding_value))
    pixels = np.clip(np.round(255 * images), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    valid_size = np.tile(np.array((height, width), np.float32), (cfg.batch_size, 1))
    columns = (pixels, valid_size, *map(np.stack, zip(*rows)), np.arange(cfg.batch_size), valid_size.astype(np.int32),
               np.ones_like(valid_size), np.ones(cfg.batch_size, bool))
    return Batch(*(Tensor(np.ascontiguousarray(column)) for column in columns[:5]), *columns[5:])


def real_batches(cfg: Config, group: Group, checkpoint: Checkpoint, parts: list[str]) -> dict[str, list[Batch]]:
    """Return at most MAX_BATCHES batches for train and predict, if in `parts`, as train.py and eval.py read them.

    Raises:
        UserError: a data set cannot be read, or its number of classes differs from the checkpoint's.
    """
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


def median_seconds(run: Callable, count: int) -> float:
    """Return the median seconds of `count` calls, after one warm-up call."""
    run()
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


class RepeatedTrainStep:
    """Runs training steps with the `batches` in turn as micro-batches.

    Attributes:
        count: number of steps so far.
        skipped: number of steps without update because of overflow.
    """

    def __init__(self, network: FasterRCNN, cfg: Config, num_classes: int, group: Group, batches: list[Batch]):
        self.batches, self.accumulate_steps = itertools.cycle(batches), cfg.accumulate_steps
        self.step = TrainStep(network, cfg, num_classes, group)
        broadcast_parameters(group, self.step.parameters())
        self.smallest = min(self.step.optimizer.parameters, key=lambda parameter: parameter.size)
        self.count = self.skipped = 0

    def __call__(self) -> None:
        """Run one step, including the update."""
        # With learning rate 0, all steps have the same weights and training cannot diverge.
        _, applied = self.step(list(itertools.islice(self.batches, self.accumulate_steps)), 0.0, self.count)
        self.smallest.asnumpy()  # the step only launches the update; reading a weight waits for its end
        self.count += 1
        self.skipped += not applied


def break_down(step: RepeatedTrainStep) -> dict[str, float]:
    """Run a step with MindSpore's profiler, which writes its table only on the CPU, with the names of cells only in graph mode.

    Returns:
        Dict of seconds by PARTS and, with several processes, by the parts of the all-reduce.
    """
    # The profiler prints its progress on standard output.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        with profile(activities=[ProfilerActivity.CPU], on_trace_ready=tensorboard_trace_handler(folder)):
            step()
        [path] = Path(folder).glob("*/FRAMEWORK/cpu_op_detail_info_*.csv")
        return {**seconds_by_part(path), **step.step.all_reduce.seconds}


def seconds_by_part(path: Path) -> dict[str, float]:
    """Return the seconds by PARTS in the profiler's table of operators, a CSV file."""
    seconds = dict.fromkeys(PARTS, 0.0)
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            seconds[part_of(row["full_op_name"])] += float(row["op_total_time(ms)"]) / 1000
    return seconds


def part_of(operator: str) -> str:
    """Return the part of an operator, named like Default/forward-TrainingForward/roi_align-RoIAlign/.../Custom-op0.

    Operators outside of cells, such as the sums of the overflow check (Expand/_SumExt/ReduceSum-op0), belong to "other".
    """
    *cells, name = operator.split("/")
    if cells[0] == "Gradients" or (name.startswith("Custom-") and cells[-1].endswith(OWN_GRADIENT)):
        return "backward"
    names = (cell.partition("-")[0] for cell in cells)
    return next((PART_OF_CELL[cell] for cell in names if cell in PART_OF_CELL), "other")


def measure_pipeline(cfg: Config) -> tuple[float, ...]:
    """Generate JPEG files and read them in two ways in turn. Both run without OpenCV's threads, see src.run.environment.

    Returns:
        Images per second of `TrainLoader`, and of decoding and resizing alone in this process: medians over ROUNDS.
    """
    size = fitted_size((HEIGHT, WIDTH), cfg.data.canvases[0])[::-1]
    cfg = with_settings(cfg, {"epochs": 1000, "accumulate_steps": 1})  # a round must not be longer than the training
    steps = max(1, IMAGES // cfg.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        loader: Any = TrainLoader(load_coco(write_jpegs(folder, max(FILES, cfg.batch_size)), folder), cfg)
        rates = []
        for _ in range(ROUNDS):
            with contextlib.closing(loader.batches()) as stream:
                # Skip the batches that are already in the queues; they would seem infinitely fast.
                next(itertools.islice(stream, 9 + 2 * cfg.prefetch_size, None))
                own = timed(lambda stream=stream: next(itertools.islice(stream, steps - 1, None)))
            plain = timed(lambda: [cv2.resize(cv2.imdecode(np.fromfile(record.path, np.uint8), cv2.IMREAD_COLOR), size,
                                              interpolation=cv2.INTER_LINEAR)
                                   for record in itertools.islice(itertools.cycle(loader.records), IMAGES)])
            rates.append((steps * cfg.batch_size / own, IMAGES / plain))
    return tuple(map(statistics.median, zip(*rates)))


def timed(run: Callable) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def write_jpegs(folder: str, count: int) -> str:
    """Write files of about 80 KB with 7 boxes each, COCO's mean; returns the path of their annotation file.

    The images have noise at several scales, as in photographs, and sensor grain.
    """
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, count + 1):
        image = rng.normal(0, 6, (HEIGHT, WIDTH, 3)) + 120
        for cells, strength in ((4, 50), (16, 25), (64, 12)):
            noise = rng.normal(0, strength, (cells * 3 // 4, cells, 3))
            image += cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        name, pixels = f"{number}.jpg", np.clip(image, 0, 255).astype(np.uint8)
        cv2.imwrite(os.path.join(folder, name), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
        images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        annotations += [{"id": 7 * number + i, "image_id": number, "category_id": 1, "bbox": box}
                        for i, box in enumerate(rng.uniform(20, HEIGHT / 2, (7, 4)).tolist())]
    path = Path(folder, "instances.json")
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}))
    return str(path)
