"""Records -> samples -> batches for training and evaluation, read ahead by worker threads, or by MindSpore's worker processes.

A sample is a function of the seed and its `Draw` alone. It does not depend on the worker, the batch or what came before, so a
run that is resumed at any step sees what an uninterrupted one would have seen.
"""
from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import functools
import itertools
import logging
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

import mindspore as ms
import mindspore.dataset as ds
import numpy as np

from src.dataset.annotations import CocoDataset, Record
from src.dataset.batching import AUGMENTATION, epoch_order, one_canvas_batches
from src.dataset.image import UnreadableImageError, read_image
from src.dataset.repetition import occurrences, repeat_factors
from src.dataset.resize import choose_canvas, fitted_size, scaling_of
from src.dataset.sample import Sample
from src.dataset.splits import TrainingSet, training_records
from src.dataset.transforms import apply, pad_boxes, padding_of
from src.errors import UserError

logger = logging.getLogger("faster_rcnn")
share_logger = logging.getLogger("faster_rcnn.share")

# MindSpore's sampler keeps the number of every batch of a run, 8 bytes each. A thousand epochs of COCO are fewer.
MAX_IMAGES = 2**27
NETWORK_COLUMNS = 5  # the first ones of a batch, which the network reads


class Draw(NamedTuple):
    """A place in an epoch."""
    record: int      # its number
    epoch: int
    repeat: int = 0  # how often the record has come in the epoch before: each time it is augmented in another way


class Batch(NamedTuple):
    """B images of one canvas with their annotations, at most G boxes each. A loader makes MindSpore tensors of the first five,
    which the network reads; the others stay arrays.
    """
    image: np.ndarray          # (B, H, W, 3) uint8 RGB, each image at the top left of its canvas, zeros beside it
    valid_size: np.ndarray     # (B, 2) float32, height and width of the image on its canvas
    boxes: np.ndarray          # (B, G, 4) float32 xyxy, canvas pixels; zeros where padded
    labels: np.ndarray         # (B, G) int32, 0..K-1
    mask: np.ndarray           # (B, G) bool, False where boxes and labels are padding
    image_id: np.ndarray       # (B,) int64
    original_size: np.ndarray  # (B, 2) int32, height and width of the image in its file
    scale: np.ndarray          # (B, 2) float32, canvas pixels per original pixel, (sy, sx)
    readable: np.ndarray       # (B,) bool, False where a file could not be read: training has the next readable image instead,
                               # evaluation a black one

    @property
    def canvas(self) -> tuple[int, int]:
        """(height, width) of the images' canvas in pixels."""
        return self.image.shape[1], self.image.shape[2]


class Loader:
    """What the two loaders share: numbers of batches -> batches of arrays, for several workers at once, and their stream.

    Of `size` processes, this is number `rank`.

    Attributes:
        records: of which samples are made.
        canvas_of: (N,) int64, number of each record's canvas, see `choose_canvas`.
        num_batches: of this process.
        padding_size: G, length of the box lists: the configuration's, or the most boxes that a record has.
        unreadable: {path: reason} of the files that could not be read so far; each is logged once.
    """
    num_batches: int

    def __init__(self, records: list[Record], cfg, transforms, rank: int, size: int):
        self.records, self.cfg, self.rank, self.size = records, cfg, rank, size
        self.item_transforms = transforms.item_transforms
        self.canvases, self.scaling = cfg.data.canvases, scaling_of(self.item_transforms)
        canvas_of = functools.cache(lambda size: choose_canvas(size, self.canvases, self.scaling))
        self.canvas_of = np.array([canvas_of((record.height, record.width)) for record in records])
        configured, self.padding_value = padding_of(self.item_transforms)
        self.padding_size = max(configured, max(len(record.boxes) for record in records))
        if self.padding_size > configured:
            logger.info("LabelsPadding.padding_size grows from %d to %d, the most boxes that an image has", configured,
                        self.padding_size)
        self.unreadable: dict[str, str] = {}
        self._lock = threading.Lock()

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """The batches from number `start` on; the workers end whenever the caller stops.

        Raises:
            UserError: not one training image can be read.
        """
        read = _read_with_threads if self.cfg.max_rowsize is None else _read_with_processes
        with contextlib.closing(read(self, start, self.cfg)) as batches:
            for columns in batches:
                yield Batch(*map(ms.Tensor.from_numpy, columns[:NETWORK_COLUMNS]), *columns[NETWORK_COLUMNS:])

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, number: int) -> Batch:
        draws = self.plan(int(number))
        # Images are drawn where they stay: collecting them afterwards would copy each once more.
        images = np.empty((len(draws), *self.canvases[self.canvas_of[draws[0].record]], 3), dtype=np.uint8)
        rows = [self.row(draw, canvas) for draw, canvas in zip(draws, images)]
        return Batch(images, *map(np.stack, zip(*rows)))

    def canvas_order(self, start: int = 0) -> list[tuple[int, int]]:
        """The canvases of all records, as (height, width), in the order in which the batches from number `start` on first have
        them; at the end those that they do not have."""
        used = np.unique(self.canvas_of)
        met: dict = {}
        for number in range(start, len(self)):
            if len(met) == len(used):
                break
            met[self.canvas_of[self.plan(number)[0].record]] = None
        return [self.canvases[number] for number in {**met, **dict.fromkeys(used)}]

    def plan(self, number: int) -> list[Draw]:
        """What makes up this process's batch of that number, all of one canvas."""
        raise NotImplementedError

    def row(self, draw: Draw, canvas: np.ndarray) -> tuple:
        """A sample: its columns of `Batch` but the first, `image`, which is drawn onto `canvas`."""
        raise NotImplementedError

    def read(self, index: int) -> np.ndarray | None:
        """The image of a record, (h, w, 3) uint8 RGB, or None where its file cannot be read."""
        record = self.records[index]
        try:
            return read_image(record.path, (record.height, record.width))
        except UnreadableImageError as error:
            with self._lock:
                if record.path not in self.unreadable:
                    self.unreadable[record.path] = str(error)
                    share_logger.warning("%s %s", record.path, error)
            return None

    def sample(self, canvas: np.ndarray, draw: Draw, image: np.ndarray | None, readable: bool) -> tuple:
        """The columns of a record; its image is transformed onto `canvas` (H, W, 3) uint8, which is black without one."""
        record = self.records[draw.record]
        size = record.height, record.width
        if image is None:
            canvas[:] = 0
            valid_size = np.array(fitted_size(size, (canvas.shape[0], canvas.shape[1]), self.scaling), dtype=np.float32)
            scale = valid_size / np.array(size, dtype=np.float32)
            sample = Sample(canvas, record.boxes * scale[[1, 0, 1, 0]], record.labels, scale)
        else:
            rng = np.random.default_rng([self.cfg.seed, AUGMENTATION, draw.epoch, draw.record, draw.repeat])
            valid_size, sample = apply(self.item_transforms, Sample(image, record.boxes, record.labels), rng, canvas)
        return (valid_size, *pad_boxes(sample.boxes, sample.labels, self.padding_size, self.padding_value),
                np.int64(record.image_id), np.array(size, dtype=np.int32), sample.scale, np.bool_(readable))


class TrainLoader(Loader):
    """Shuffled, augmented batches of all epochs of a run.

    An epoch is a permutation of the records, cut to whole batches of all processes, of which this one gets its rows: in each
    step all have images of the same canvas. It gets them as cfg.accumulate_steps batches, the micro-batches of the step. With
    one canvas the records beyond the last whole batch are left out of the epoch. With several, the last batch of each canvas is
    filled up with the first records of that canvas in the epoch, so that none is left out. With `data.repeat_threshold`, records
    with rare classes come more often. The epochs are one stream, so that workers start once a run, and a run that starts at step
    k gets the batches that one from step 0 gets from its step k on. A record whose file cannot be read is replaced by the next
    readable one, of the same canvas if there is one.

    Attributes:
        steps_per_epoch: as training counts them; step number s begins with batch number s * cfg.accumulate_steps.

    Raises:
        UserError: no record has a box, a batch of the only canvas is larger than the data set, or the run is beyond reason.
    """

    def __init__(self, dataset: TrainingSet | CocoDataset, cfg, rank: int = 0, size: int = 1):
        super().__init__(training_records(dataset, cfg.data.keep_empty_images), cfg, cfg.data.train_transforms, rank, size)
        self.factors = repeat_factors(self.records, len(dataset.names), cfg.data.repeat_threshold)
        # Of two epochs: workers may be at the end of one and at the beginning of the next.
        self.draw_epoch = functools.lru_cache(maxsize=2)(self._draw_epoch)
        self.steps_per_epoch = len(self.draw_epoch(0)[0])
        if self.steps_per_epoch == 0:
            processes = f" for each of {size} processes" if size > 1 else ""
            times, smaller = "", "batch_size"
            if cfg.accumulate_steps > 1:
                times, smaller = f" and accumulate_steps is {cfg.accumulate_steps}", "batch_size or accumulate_steps"
            raise UserError(f"batch_size is {cfg.batch_size}{times}{processes}, but {dataset.annotation_path} has only "
                            f"{len(self.records)} images to train on: choose a smaller {smaller}.")
        self.num_batches = self.steps_per_epoch * cfg.accumulate_steps * cfg.epochs
        images = self.num_batches * cfg.batch_size
        if images > MAX_IMAGES:
            raise UserError(f"epochs is {cfg.epochs}, which makes {images} images for a process, more than {MAX_IMAGES}: choose "
                            "a smaller number of epochs.")

    def _draw_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Records and repeats of the steps of all processes, (steps_per_epoch, size * accumulate_steps * B) int64, see `Draw`."""
        common = self.cfg.batch_size * self.cfg.accumulate_steps * self.size
        order = epoch_order(self.cfg.seed, epoch, self.factors, self.canvas_of)
        batches = one_canvas_batches(order, self.canvas_of, common, fill=len(self.canvases) > 1)
        records = np.reshape([batch for batch in batches if len(batch) == common], (-1, common)).astype(np.int64)
        return records, occurrences(records.ravel()).reshape(records.shape)

    def plan(self, number: int) -> list[Draw]:
        step_of_run, micro_batch = divmod(number, self.cfg.accumulate_steps)
        epoch, step = divmod(step_of_run, self.steps_per_epoch)
        first = (self.rank * self.cfg.accumulate_steps + micro_batch) * self.cfg.batch_size
        rows = [part[step, first:first + self.cfg.batch_size].tolist() for part in self.draw_epoch(epoch)]
        return [Draw(record, epoch, repeat) for record, repeat in zip(*rows)]

    def row(self, draw: Draw, canvas: np.ndarray) -> tuple:
        for candidate in self._in_place_of(draw.record):
            image = self.read(candidate)
            if image is not None:
                return self.sample(canvas, draw._replace(record=candidate), image, readable=candidate == draw.record)
        raise UserError(f"not one of the {len(self.records)} training images can be read; above is the reason for each.")

    def _in_place_of(self, index: int) -> Iterator[int]:
        """The record itself, those that follow it on its canvas, then those of other canvases."""
        count = len(self.records)
        for same_canvas in (True, False):
            for other in itertools.chain(range(index, count), range(index)):
                if (self.canvas_of[other] == self.canvas_of[index]) == same_canvas:
                    yield other


class EvalLoader(Loader):
    """Batches of every record once, in order, also of those without boxes.

    Of several processes, each gets every size-th batch: an image has the same neighbours whatever their number. The last batch of
    each canvas is filled up with repeats of its last record. An unreadable file becomes a black image.

    Attributes:
        counts: by batch, the number of its first rows that count; those after them are repeats.
        num_images: of this process.
    """

    def __init__(self, dataset: CocoDataset, cfg, rank: int = 0, size: int = 1):
        super().__init__(dataset.records, cfg, cfg.data.eval_transforms, rank, size)
        order = np.arange(len(self.records))
        self._batches = one_canvas_batches(order, self.canvas_of, cfg.batch_size, fill=False)[rank::size]
        self.num_batches = len(self._batches)
        self.counts = [len(batch) for batch in self._batches]
        self.num_images = sum(self.counts)

    def plan(self, number: int) -> list[Draw]:
        batch = self._batches[number]
        padded = np.pad(batch, (0, self.cfg.batch_size - len(batch)), mode="edge")
        return [Draw(record, epoch=0) for record in padded.tolist()]

    def row(self, draw: Draw, canvas: np.ndarray) -> tuple:
        image = self.read(draw.record)
        return self.sample(canvas, draw, image, readable=image is not None)


def _read_with_threads(source, start, cfg):
    # A thread pool of the standard library, not GeneratorDataset's worker threads: these outlive their iterator or take up to
    # 5 s to end, sleep 0.1 s whenever no batch is ready, and turn an error into a page of MindSpore's internals.
    workers = _worker_count(cfg.num_workers)
    numbers = iter(range(start, len(source)))
    pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="data")
    try:
        pending = collections.deque(pool.submit(source.__getitem__, number)
                                    for number in itertools.islice(numbers, workers + cfg.prefetch_size))
        while pending:
            batch = pending.popleft().result()
            pending.extend(pool.submit(source.__getitem__, number) for number in itertools.islice(numbers, 1))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


def _read_with_processes(source, start, cfg):
    if start >= len(source):
        return  # to MindSpore, zero samples mean all of them
    ds.config.set_prefetch_size(cfg.prefetch_size)
    rows = ds.GeneratorDataset(source, list(Batch._fields), sampler=ds.SequentialSampler(start, len(source) - start),
                               num_parallel_workers=_worker_count(cfg.num_workers), python_multiprocessing=True,
                               max_rowsize=cfg.max_rowsize)
    iterator = rows.create_tuple_iterator(num_epochs=1, output_numpy=True)
    try:
        yield from iterator
    finally:
        iterator.release()


@functools.cache  # so that it is said once
def _worker_count(configured: int) -> int:
    """MindSpore refuses more worker processes than processors, and more threads read no faster."""
    workers = min(configured, os.cpu_count() or 1)
    if workers < configured:
        logger.info("num_workers is %d, but there are %d processors: %d workers are used", configured, os.cpu_count(), workers)
    return workers
