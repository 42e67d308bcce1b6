"""Records -> samples -> batches for training and evaluation, read ahead by worker threads, or by MindSpore's worker processes.

A sample is a function of (seed, epoch, record) alone. It does not depend on the worker, the batch or what came before, so a run
that is resumed at any step sees what an uninterrupted one would have seen.
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

from src.dataset.annotations import CocoDataset, Record, training_records
from src.dataset.image import UnreadableImageError, read_image
from src.dataset.resize import fitted_size
from src.dataset.sample import Sample
from src.dataset.transforms import apply, pad_boxes, padding_of
from src.errors import UserError

logger = logging.getLogger("faster_rcnn")
share_logger = logging.getLogger("faster_rcnn.share")

# MindSpore's sampler keeps the number of every batch of a run, 8 bytes each. A thousand epochs of COCO are fewer.
MAX_IMAGES = 2**27
NETWORK_COLUMNS = 5  # the first ones of a batch, which the network reads


class Batch(NamedTuple):
    """B images with their annotations, at most G boxes each. A loader makes MindSpore tensors of the first five, which the
    network reads; the others stay arrays.
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


@functools.lru_cache(maxsize=2)  # workers may be at the end of one epoch and the beginning of the next
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The records of an epoch in the order in which they are drawn: a permutation of range(count), (count,) int64."""
    return np.random.default_rng([seed, epoch]).permutation(count)


class Loader:
    """What the two loaders share: numbers of batches -> batches of arrays, for several workers at once, and their stream.

    Of `size` processes, this is number `rank`.

    Attributes:
        records: of which samples are made.
        num_batches: of this process.
        padding_size: G, length of the box lists: the configuration's, or the most boxes that a record has.
        unreadable: {path: reason} of the files that could not be read so far; each is logged once.
    """
    num_batches: int

    def __init__(self, records: list[Record], cfg, transforms, rank: int, size: int):
        self.records, self.cfg, self.rank, self.size = records, cfg, rank, size
        self.item_transforms = transforms.item_transforms
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
        # Images are drawn where they stay: collecting them afterwards would copy each once more.
        images = np.empty((self.cfg.batch_size, *self.cfg.data.target_size, 3), dtype=np.uint8)
        rows = [self.row(int(number), row, canvas) for row, canvas in enumerate(images)]
        return Batch(images, *map(np.stack, zip(*rows)))

    def row(self, number: int, row: int, canvas: np.ndarray) -> tuple:
        """The sample in a row of a batch: its columns of `Batch` but the first, `image`, which is drawn onto `canvas`."""
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

    def sample(self, canvas: np.ndarray, index: int, image: np.ndarray | None, epoch: int, readable: bool) -> tuple:
        """The columns of a record; its image is transformed onto `canvas` (H, W, 3) uint8, which is black without one."""
        record = self.records[index]
        size = record.height, record.width
        if image is None:
            canvas[:] = 0
            valid_size = np.array(fitted_size(size, self.cfg.data.target_size), dtype=np.float32)
            scale = valid_size / np.array(size, dtype=np.float32)
            sample = Sample(canvas, record.boxes * scale[[1, 0, 1, 0]], record.labels, scale)
        else:
            rng = np.random.default_rng([self.cfg.seed, epoch, index])
            valid_size, sample = apply(self.item_transforms, Sample(image, record.boxes, record.labels), rng, canvas)
        return (valid_size, *pad_boxes(sample.boxes, sample.labels, self.padding_size, self.padding_value),
                np.int64(record.image_id), np.array(size, dtype=np.int32), sample.scale, np.bool_(readable))


class TrainLoader(Loader):
    """Shuffled, augmented batches of all epochs of a run.

    An epoch is a permutation of the records cut to whole batches of all processes, of which this one gets its rows. The epochs
    are one stream, so that workers start once a run, and a run that starts at step k gets the batches that one from step 0 gets
    from its step k on. A record whose file cannot be read is replaced by the next readable one.

    Attributes:
        steps_per_epoch: batches of an epoch.

    Raises:
        UserError: no record has a box, a batch is larger than the data set, or the run is beyond reason.
    """

    def __init__(self, dataset: CocoDataset, cfg, rank: int = 0, size: int = 1):
        super().__init__(training_records(dataset), cfg, cfg.data.train_transforms, rank, size)
        self.steps_per_epoch = len(self.records) // (cfg.batch_size * size)
        if self.steps_per_epoch == 0:
            processes = f" for each of {size} processes" if size > 1 else ""
            raise UserError(f"batch_size is {cfg.batch_size}{processes}, but {dataset.annotation_path} has only "
                            f"{len(self.records)} images to train on: choose a smaller batch_size.")
        self.num_batches = self.steps_per_epoch * cfg.epochs
        images = self.num_batches * cfg.batch_size
        if images > MAX_IMAGES:
            raise UserError(f"epochs is {cfg.epochs}, which makes {images} images for a process, more than {MAX_IMAGES}: choose "
                            "a smaller number of epochs.")

    def row(self, number: int, row: int, canvas: np.ndarray) -> tuple:
        epoch, step = divmod(number, self.steps_per_epoch)
        count = len(self.records)
        order = epoch_order(self.cfg.seed, epoch, count)
        wanted = int(order[(step * self.size + self.rank) * self.cfg.batch_size + row])
        for index in itertools.chain(range(wanted, count), range(wanted)):
            image = self.read(index)
            if image is not None:
                return self.sample(canvas, index, image, epoch, readable=index == wanted)
        raise UserError(f"not one of the {count} training images can be read; above is the reason for each.")


class EvalLoader(Loader):
    """Batches of every record once, in order, also of those without boxes.

    Of several processes, each gets every size-th batch: an image has the same neighbours whatever their number. The last batch is
    filled up with repeats of the last record: rows from `num_images` on are to be ignored. An unreadable file becomes a black
    image.

    Attributes:
        num_images: of this process.
    """

    def __init__(self, dataset: CocoDataset, cfg, rank: int = 0, size: int = 1):
        super().__init__(dataset.records, cfg, cfg.data.eval_transforms, rank, size)
        count = len(self.records)
        self.starts = range(rank * cfg.batch_size, count, size * cfg.batch_size)  # numbers of the batches' first records
        self.num_batches = len(self.starts)
        self.num_images = sum(min(cfg.batch_size, count - start) for start in self.starts)

    def row(self, number: int, row: int, canvas: np.ndarray) -> tuple:
        index = min(self.starts[number] + row, len(self.records) - 1)
        image = self.read(index)
        return self.sample(canvas, index, image, epoch=0, readable=image is not None)


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
