"""Turns records into samples and batches for training and evaluation, prefetched by worker threads or MindSpore's processes.

A sample depends only on the seed and its `SampleKey`, not on the worker, the batch or earlier samples. A resumed run therefore
sees the same samples as an uninterrupted run. All images of a batch use the same canvas. Images with rare classes may occur more
often (repeat-factor sampling of LVIS, arXiv:1908.03195).
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

from src.config import Config
from src.dataset.annotations import Dataset, Record
from src.dataset.image import UnreadableImageError, read_image
from src.dataset.resize import Sample, choose_canvas, fitted_size, scaling_of
from src.dataset.transforms import apply, pad_boxes, padding_of
from src.errors import UserError

logger = logging.getLogger("faster_rcnn")
share_logger = logging.getLogger("faster_rcnn.share")

# The second number of each seed, one per purpose; src/dataset/shapes.py uses 0 and 1. NumPy pads seeds with zeros.
EPOCH_ORDER, AUGMENTATION, SAMPLING = 2, 3, 4
# MindSpore's sampler stores the index of every batch of a run, 8 bytes each. A thousand epochs of COCO are below this limit.
MAX_IMAGES = 2**27
NETWORK_COLUMNS = 5  # the first columns of a batch, which are the network's inputs


class SampleKey(NamedTuple):
    """Identifies one sample of an epoch."""
    record: int      # index of the record
    epoch: int = 0
    repeat: int = 0  # number of earlier occurrences in this epoch; each is augmented differently


class Batch(NamedTuple):
    """B images on the same canvas with their annotations, at most G boxes per image. A loader converts the first five columns,
    the network's inputs, to MindSpore tensors. All further columns remain arrays.
    """
    image: np.ndarray          # (B, H, W, 3) uint8 RGB, each image at the top left of its canvas, zeros elsewhere
    valid_size: np.ndarray     # (B, 2) float32, height and width of the image on its canvas
    boxes: np.ndarray          # (B, G, 4) float32 xyxy, canvas pixels; zeros where padded
    labels: np.ndarray         # (B, G) int32, 0..K-1
    mask: np.ndarray           # (B, G) bool, False where boxes and labels are padding
    image_id: np.ndarray       # (B,) int64
    original_size: np.ndarray  # (B, 2) int32, height and width of the image in its file
    scale: np.ndarray          # (B, 2) float32, canvas pixels per original pixel, (sy, sx)
    readable: np.ndarray       # (B,) bool, False if the file could not be read: training uses the next readable image instead,
                               # evaluation a black image

    @property
    def canvas(self) -> tuple[int, int]:
        """Return the canvas size (height, width) in pixels."""
        return self.image.shape[1], self.image.shape[2]


class Loader:
    """Base class of the two loaders. `loader[number]` builds a batch of arrays, and several workers may call it at once.

    The loader serves process number `rank` of `size` processes.

    Attributes:
        records: the records from which samples are made.
        canvas_index: (N,) int64, canvas index of each record, see `choose_canvas`.
        num_batches: number of batches of this process.
        padding_size: G, length of the box lists: see `padded_length`, for the most boxes of any record.
        unreadable: {path: reason} of the files that could not be read so far. Each file is logged once.
    """
    num_batches: int

    def __init__(self, records: list[Record], cfg: Config, item_transforms: list[dict], rank: int, size: int):
        self.records, self.cfg, self.item_transforms, self.rank, self.size = records, cfg, item_transforms, rank, size
        self.canvases, self.scaling = cfg.data.canvases, scaling_of(item_transforms)
        index_of = functools.cache(lambda size: choose_canvas(size, self.canvases, self.scaling))
        self.canvas_index = np.array([index_of((record.height, record.width)) for record in records])
        self.padding_size, (_, self.padding_value) = padded_length(records), padding_of(item_transforms)
        self.unreadable: dict[str, str] = {}
        self._lock = threading.Lock()

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """Yield the batches from number `start` on. The workers end when the caller stops iterating.

        Raises:
            UserError: no training image can be read.
        """
        read = self._read_with_threads if self.cfg.max_rowsize is None else self._read_with_processes
        with contextlib.closing(read(start, _worker_count(self.cfg.num_workers))) as batches:
            for columns in batches:
                yield Batch(*map(ms.from_numpy, columns[:NETWORK_COLUMNS]), *columns[NETWORK_COLUMNS:])

    def _read_with_threads(self, start, workers):
        # GeneratorDataset's worker threads are not used: they outlive their iterator or need up to 5 s to stop, sleep 0.1 s
        # whenever no batch is ready, and turn an error into a page of MindSpore's internals.
        numbers = iter(range(start, len(self)))
        pool = concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="data")
        try:
            pending = collections.deque(pool.submit(self.__getitem__, number)
                                        for number in itertools.islice(numbers, workers + self.cfg.prefetch_size))
            while pending:
                batch = pending.popleft().result()
                pending.extend(pool.submit(self.__getitem__, number) for number in itertools.islice(numbers, 1))
                yield batch
        finally:
            pool.shutdown(cancel_futures=True)

    def _read_with_processes(self, start, workers):
        if start >= len(self):
            return  # MindSpore interprets zero samples as all samples
        ds.config.set_prefetch_size(self.cfg.prefetch_size)
        rows = ds.GeneratorDataset(self, list(Batch._fields), sampler=ds.SequentialSampler(start, len(self) - start),
                                   num_parallel_workers=workers, python_multiprocessing=True, max_rowsize=self.cfg.max_rowsize)
        iterator = rows.create_tuple_iterator(num_epochs=1, output_numpy=True)
        try:
            yield from iterator
        finally:
            iterator.release()

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, number: int) -> Batch:
        keys = self.batch_keys(int(number))
        # Each image is written directly into the batch. Stacking the images afterwards would copy each of them once more.
        images = np.empty((len(keys), *self.canvases[self.canvas_index[keys[0].record]], 3), dtype=np.uint8)
        rows = [self.load_sample(key, canvas) for key, canvas in zip(keys, images)]
        return Batch(images, *map(np.stack, zip(*rows)))

    def canvas_order(self, start: int = 0) -> list[tuple[int, int]]:
        """Return the canvases (height, width) of all records, in the order in which the batches from number `start` on first use
        them. Canvases that these batches do not use come last."""
        used = np.unique(self.canvas_index)
        met: dict = {}
        for number in range(start, len(self)):
            if len(met) == len(used):
                break
            met[self.canvas_index[self.batch_keys(number)[0].record]] = None
        return [self.canvases[number] for number in {**met, **dict.fromkeys(used)}]

    def batch_keys(self, number: int) -> list[SampleKey]:
        """Return the samples of batch `number` of this process, all on one canvas."""
        raise NotImplementedError

    def candidates(self, index: int) -> Iterator[int]:
        """Yield the record itself, and then the records that may replace it if its file cannot be read."""
        yield index

    def load_sample(self, key: SampleKey, canvas: np.ndarray) -> tuple:
        """Return the columns of `Batch` for one sample, without `image`, which is written to `canvas` (H, W, 3) uint8: the first
        candidate whose file can be read, or black."""
        for index in self.candidates(key.record):
            record = self.records[index]
            image = self._read(record)
            if image is not None:
                break
        size = record.height, record.width
        if image is None:
            canvas[:] = 0
            valid_size = np.array(fitted_size(size, (canvas.shape[0], canvas.shape[1]), self.scaling), dtype=np.float32)
            scale = valid_size / np.array(size, dtype=np.float32)
            sample = Sample(canvas, record.boxes * scale[[1, 0, 1, 0]], record.labels, scale)
        else:
            rng = np.random.default_rng([self.cfg.seed, AUGMENTATION, key.epoch, index, key.repeat])
            valid_size, sample = apply(self.item_transforms, Sample(image, record.boxes, record.labels), rng, canvas)
        return (valid_size, *pad_boxes(sample.boxes, sample.labels, self.padding_size, self.padding_value),
                np.int64(record.image_id), np.array(size, dtype=np.int32), sample.scale,
                np.bool_(image is not None and index == key.record))

    def _read(self, record):
        """Return the image of a record, (h, w, 3) uint8 RGB, or None if its file cannot be read."""
        try:
            return read_image(record.path, (record.height, record.width))
        except UnreadableImageError as error:
            with self._lock:
                if record.path not in self.unreadable:
                    self.unreadable[record.path] = str(error)
                    share_logger.warning("%s %s", record.path, error)
            return None


class TrainLoader(Loader):
    """Shuffled, augmented batches of all epochs of a run.

    An epoch is a random permutation of the records, split into global batches, one per step. Each process gets its rows as
    cfg.accumulate_steps micro-batches. In each step, all processes use the same canvas. With one canvas, an epoch leaves out the
    records after the last whole batch. With several canvases, no record is left out: the last batch of each canvas is filled up
    with the first records of that canvas in the epoch. Records without boxes occur only with `data.keep_empty_images`, and with
    `data.repeat_threshold`, records with rare classes occur more often. All epochs form one stream, so that workers start once
    per run. A run that starts at step k gets the same batches as a run from step 0 gets from step k on. If a record's file cannot
    be read, the next readable record replaces it, if possible on the same canvas.

    Attributes:
        steps_per_epoch: number of optimizer steps per epoch. Step s begins with batch number s * cfg.accumulate_steps.

    Raises:
        UserError: no record has a box, the only canvas has fewer records than a global batch needs, or the run is too long.
    """

    def __init__(self, dataset: Dataset, cfg: Config, rank: int = 0, size: int = 1):
        path, records = dataset.annotation_path, [record for record in dataset.records if len(record.boxes)]
        if not records:
            raise UserError(f"No image of {path} has a box to train on: training needs annotations that are neither crowds nor "
                            "empty.")
        if len(records) < len(dataset.records):
            logger.info("%s: %d of %d images have no box and are %s", path, len(dataset.records) - len(records),
                        len(dataset.records), "background" if cfg.data.keep_empty_images else
                        "left out of training (data.keep_empty_images=True keeps them as background)")
        records = dataset.records if cfg.data.keep_empty_images else records
        super().__init__(records, cfg, cfg.data.train_transforms.item_transforms, rank, size)
        self.factors = repeat_factors(self.records, len(dataset.names), cfg.data.repeat_threshold)
        # Keep two epochs, because some workers may be in one epoch while others are already in the next.
        self.epoch_batches = functools.lru_cache(maxsize=2)(self._epoch_batches)
        self.steps_per_epoch = len(self.epoch_batches(0)[0])
        if self.steps_per_epoch == 0:
            raise UserError(f"batch_size is {cfg.batch_size}, accumulate_steps is {cfg.accumulate_steps} and {size} processes "
                            f"train, but {path} has only {len(self.records)} images to train on: choose a "
                            "smaller batch_size or accumulate_steps.")
        self.num_batches = self.steps_per_epoch * cfg.accumulate_steps * cfg.epochs
        images = self.num_batches * cfg.batch_size
        if images > MAX_IMAGES:
            raise UserError(f"epochs is {cfg.epochs}, which makes {images} images for a process, more than {MAX_IMAGES}: choose "
                            "a smaller number of epochs.")

    def _epoch_batches(self, epoch):
        """Return `record` and `repeat` of the keys of all steps and ranks, (steps, size * accumulate_steps * B) int64 each."""
        common = self.cfg.batch_size * self.cfg.accumulate_steps * self.size
        order = epoch_order(self.cfg.seed, epoch, self.factors, self.canvas_index)
        batches = one_canvas_batches(order, self.canvas_index, common, fill=len(self.canvases) > 1)
        records = np.reshape([batch for batch in batches if len(batch) == common], (-1, common)).astype(np.int64)
        return records, occurrences(records.ravel()).reshape(records.shape)

    def batch_keys(self, number: int) -> list[SampleKey]:
        step_of_run, micro_batch = divmod(number, self.cfg.accumulate_steps)
        epoch, step = divmod(step_of_run, self.steps_per_epoch)
        first = (self.rank * self.cfg.accumulate_steps + micro_batch) * self.cfg.batch_size
        rows = [part[step, first:first + self.cfg.batch_size].tolist() for part in self.epoch_batches(epoch)]
        return [SampleKey(record, epoch, repeat) for record, repeat in zip(*rows)]

    def candidates(self, index: int) -> Iterator[int]:
        """Yield the record itself, then the records after it on its canvas, then the records of other canvases.

        Raises:
            UserError: the caller could read none of them.
        """
        count = len(self.records)
        for same_canvas in (True, False):
            for other in itertools.chain(range(index, count), range(index)):
                if (self.canvas_index[other] == self.canvas_index[index]) == same_canvas:
                    yield other
        raise UserError(f"not one of the {count} training images can be read; above is the reason for each.")


class EvalLoader(Loader):
    """Batches that contain every record once, in order, including records without boxes.

    With several processes, each gets every size-th batch, so that the batches are the same for any number of processes. The last
    batch of each canvas is padded with copies of its last record. An unreadable file becomes a black image.

    Attributes:
        counts: for each batch, the number of rows to evaluate; rows after these are padding.
        num_images: number of images of this process.
    """

    def __init__(self, dataset: Dataset, cfg: Config, rank: int = 0, size: int = 1):
        super().__init__(dataset.records, cfg, cfg.data.eval_transforms.item_transforms, rank, size)
        order = np.arange(len(self.records))
        self._batches = one_canvas_batches(order, self.canvas_index, cfg.batch_size, fill=False)[rank::size]
        self.num_batches = len(self._batches)
        self.counts = [len(batch) for batch in self._batches]
        self.num_images = sum(self.counts)

    def batch_keys(self, number: int) -> list[SampleKey]:
        batch = self._batches[number]
        return [SampleKey(record) for record in np.pad(batch, (0, self.cfg.batch_size - len(batch)), mode="edge").tolist()]


def padded_length(records: list[Record]) -> int:
    """Return the most boxes of any record, rounded up to a multiple of 8: similar data sets have the same compiled graphs."""
    return -(-max(len(record.boxes) for record in records) // 8) * 8 or 8


def repeat_factors(records: list[Record], num_classes: int, threshold: float) -> np.ndarray:
    """Return how often each image occurs per epoch on average: (N,) float64, at least 1.

    The factor of a class (0..K-1) in a fraction f of the images is max(1, sqrt(threshold / f)). The factor of an image is the
    largest of its classes' factors. A threshold of 0 gives 1 for all images.
    """
    if not threshold:
        return np.ones(len(records))  # avoids a pass over all images of a large data set
    classes = [np.unique(record.labels) for record in records]
    images = np.bincount(np.concatenate(classes), minlength=num_classes)
    by_class = np.maximum(1.0, np.sqrt(threshold * len(records) / np.maximum(images, 1)))
    return np.array([by_class[own].max(initial=1.0) for own in classes])


def sample_repeats(factors: np.ndarray, canvas_index: np.ndarray, offset: float) -> np.ndarray:
    """Return how often each image occurs in one epoch: (N,) int64, its factor rounded down or up; the mean is the factor.

    The paper rounds each of the `factors` (N,) float64 at random. Here all images share one `offset`, uniform in [0, 1)
    (systematic sampling), so that the number of images per canvas is the same in every epoch. To make this number an integer, the
    factors of a canvas grow by less than one image. `canvas_index` (N,) has the canvas index of each image.
    """
    repeats = np.ones(len(factors), dtype=np.int64)
    for canvas in np.unique(canvas_index):
        own = canvas_index == canvas
        ends = np.cumsum(factors[own])
        total = np.ceil(ends[-1])
        ends *= total / ends[-1]
        ends[-1] = total
        repeats[own] = np.diff(np.floor(ends + offset), prepend=0)
    return repeats


def epoch_order(seed: int, epoch: int, factors: np.ndarray, canvas_index: np.ndarray) -> np.ndarray:
    """Return the records of an epoch in random order, int64, each as often as `sample_repeats` says."""
    rng = np.random.default_rng([seed, EPOCH_ORDER, epoch])
    records = np.arange(len(factors))
    if (factors > 1).any():
        records = np.repeat(records, sample_repeats(factors, canvas_index, rng.random()))
    return rng.permutation(records)


def one_canvas_batches(order: np.ndarray, canvas_index: np.ndarray, size: int, fill: bool) -> list[np.ndarray]:
    """Split `order`, (N,) int64 record numbers, into batches of `size` records with one canvas each.

    Batches are sorted by the position of their first record. If `fill` is True, the last batch of each canvas is padded with the
    first records of that canvas; otherwise it may be smaller.
    """
    canvases, batches = canvas_index[order], []
    for canvas in np.unique(canvases):
        places = np.flatnonzero(canvases == canvas)
        if fill:
            places = np.resize(places, -(-len(places) // size) * size)  # repeats them from the start
        batches += [places[start:start + size] for start in range(0, len(places), size)]
    return [order[places] for places in sorted(batches, key=lambda places: places[0])]


def occurrences(order: np.ndarray) -> np.ndarray:
    """Return how often the value of each entry of `order` (N,) int64 occurs before that entry: (N,) int64."""
    by_value = np.argsort(order, kind="stable")
    result = np.empty_like(order)
    result[by_value] = np.arange(len(order)) - np.searchsorted(order[by_value], order[by_value])
    return result


@functools.cache  # so that it is logged once
def _worker_count(configured: int) -> int:
    """Return the number of workers, at most one per processor: MindSpore rejects more processes, more threads are no faster."""
    workers = min(configured, os.cpu_count() or 1)
    if workers < configured:
        logger.info("num_workers is %d, but there are %d processors: %d workers are used", configured, os.cpu_count(), workers)
    return workers
