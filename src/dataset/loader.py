"""Batches for training and evaluation, read ahead by worker threads, or by MindSpore's worker processes."""
from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import functools
import itertools
import logging
import os
from collections.abc import Iterator

import mindspore as ms
import mindspore.dataset as ds
import numpy as np

from src.dataset.annotations import CocoDataset, training_records
from src.dataset.samples import Batch, Samples, epoch_order
from src.errors import UserError

logger = logging.getLogger("faster_rcnn")

# MindSpore's sampler keeps the number of every batch of a run, 8 bytes each. A thousand epochs of COCO are fewer.
MAX_IMAGES = 2**27
NETWORK_COLUMNS = 5  # the first ones of a batch, which the network reads


class TrainLoader(Samples):
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
        images = self.steps_per_epoch * cfg.epochs * cfg.batch_size
        if images > MAX_IMAGES:
            raise UserError(f"epochs is {cfg.epochs}, which makes {images} images for a process, more than {MAX_IMAGES}: choose "
                            "a smaller number of epochs.")

    def __len__(self) -> int:
        return self.steps_per_epoch * self.cfg.epochs

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """The batches of the run from step number `start` on.

        Raises:
            UserError: not one image can be read.
        """
        return _batches(self, start, self.cfg)

    def row(self, number: int, row: int, canvas: np.ndarray) -> tuple:
        epoch, step = divmod(number, self.steps_per_epoch)
        count = len(self.records)
        order = epoch_order(self.cfg.seed, epoch, count)
        wanted = int(order[(step * self.size + self.rank) * self.cfg.batch_size + row])
        for index in (*range(wanted, count), *range(wanted)):
            image = self.read(index)
            if image is not None:
                return self.sample(canvas, index, image, epoch, readable=index == wanted)
        raise UserError(f"not one of the {count} training images can be read; above is the reason for each.")


class EvalLoader(Samples):
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
        self.num_images = sum(min(cfg.batch_size, count - start) for start in self.starts)

    def __len__(self) -> int:
        return len(self.starts)

    def batches(self) -> Iterator[Batch]:
        """The batches."""
        return _batches(self, 0, self.cfg)

    def row(self, number: int, row: int, canvas: np.ndarray) -> tuple:
        index = min(self.starts[number] + row, len(self.records) - 1)
        image = self.read(index)
        return self.sample(canvas, index, image, epoch=0, readable=image is not None)


def _batches(samples: Samples, start: int, cfg) -> Iterator[Batch]:
    """Yield the batches from number `start` on; ends the workers whenever the caller stops."""
    read = _read_with_threads if cfg.max_rowsize is None else _read_with_processes
    with contextlib.closing(read(samples, start, cfg)) as batches:
        for columns in batches:
            yield Batch(*map(ms.Tensor.from_numpy, columns[:NETWORK_COLUMNS]), *columns[NETWORK_COLUMNS:])


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
