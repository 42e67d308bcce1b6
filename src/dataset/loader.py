"""Batches for training and evaluation, read ahead by worker threads, or by MindSpore's worker processes."""
from __future__ import annotations

import collections
import concurrent.futures
import functools
import itertools
import logging
import os
from collections.abc import Iterator

import mindspore as ms
import mindspore.dataset as ds

from src.dataset.annotations import CocoDataset, Record, training_records
from src.dataset.samples import Batch, BatchSource, EvalSamples, SampleMaker, TrainSamples
from src.dataset.transforms import padding_of
from src.errors import UserError

logger = logging.getLogger("faster_rcnn")

# MindSpore's sampler keeps the number of every batch of a run, 8 bytes each. A thousand epochs of COCO are fewer.
MAX_IMAGES = 2**27
NETWORK_COLUMNS = 5  # the first ones of a batch, which the network reads


class TrainLoader:
    """Shuffled, augmented batches of all epochs of a run.

    An epoch is a permutation of the records cut to whole batches of all processes, of which this one gets its rows. The epochs
    are one stream, so that workers start once a run, and a run that starts at step k gets the batches that one from step 0 gets
    from its step k on.

    Args:
        dataset: whose images with a box train.
        cfg: the configuration.
        rank: of this process.
        size: number of processes.

    Attributes:
        records: those that train.
        padding_size: G, length of the box lists.
        steps_per_epoch: batches of an epoch.
        unreadable: {path: reason} of the files that could not be read so far.

    Raises:
        UserError: no record has a box, a batch is larger than the data set, or the run is beyond reason.
    """

    def __init__(self, dataset: CocoDataset, cfg, rank: int = 0, size: int = 1):
        self.records = training_records(dataset)
        maker = _sample_maker(self.records, cfg, cfg.data.train_transforms)
        self._cfg, self._samples = cfg, TrainSamples(maker, cfg.batch_size, cfg.epochs, rank, size)
        self.padding_size, self.unreadable = maker.padding_size, maker.unreadable
        self.steps_per_epoch = self._samples.steps_per_epoch
        if self.steps_per_epoch == 0:
            processes = f" for each of {size} processes" if size > 1 else ""
            raise UserError(f"batch_size is {cfg.batch_size}{processes}, but {dataset.annotation_path} has only "
                            f"{len(self.records)} images to train on: choose a smaller batch_size.")
        images = self._samples.num_batches() * cfg.batch_size
        if images > MAX_IMAGES:
            raise UserError(f"epochs is {cfg.epochs}, which makes {images} images for a process, more than {MAX_IMAGES}: choose "
                            "a smaller number of epochs.")

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """The batches of the run from step number `start` on.

        Raises:
            UserError: not one image can be read.
        """
        return _batches(self._samples, start, self._cfg)


class EvalLoader:
    """Batches of every record once, in order, also of those without boxes.

    Of several processes, each gets every size-th batch. The last batch is filled up with repeats of the last record: rows from
    `num_images` on are to be ignored.

    Args:
        dataset: to evaluate on.
        cfg: the configuration.
        rank: of this process.
        size: number of processes.

    Attributes:
        padding_size: G, length of the box lists.
        num_images: of this process.
        unreadable: {path: reason} of the files that could not be read so far.
    """

    def __init__(self, dataset: CocoDataset, cfg, rank: int = 0, size: int = 1):
        maker = _sample_maker(dataset.records, cfg, cfg.data.eval_transforms)
        self._cfg, self._samples = cfg, EvalSamples(maker, cfg.batch_size, rank, size)
        self.padding_size, self.unreadable = maker.padding_size, maker.unreadable
        positions = range(self._samples.num_batches() * cfg.batch_size)
        self.num_images = sum(self._samples.record_at(position) < len(dataset.records) for position in positions)

    def batches(self) -> Iterator[Batch]:
        """The batches."""
        return _batches(self._samples, 0, self._cfg)


def _sample_maker(records: list[Record], cfg, transforms) -> SampleMaker:
    configured, padding_value = padding_of(transforms.item_transforms)
    padding_size = max(configured, max(len(record.boxes) for record in records))
    if padding_size > configured:
        logger.info("LabelsPadding.padding_size grows from %d to %d, the most boxes that an image has", configured,
                    padding_size)
    return SampleMaker(records, cfg.seed, transforms.item_transforms, tuple(cfg.data.target_size), padding_size,
                       padding_value)


def _batches(samples: TrainSamples | EvalSamples, start: int, cfg) -> Iterator[Batch]:
    """Yield the batches from number `start` on; ends the workers whenever the caller stops."""
    read = _read_with_threads if cfg.max_rowsize is None else _read_with_processes
    batches = read(BatchSource(samples), start, cfg)
    try:
        for columns in batches:
            yield Batch(*map(ms.Tensor.from_numpy, columns[:NETWORK_COLUMNS]), *columns[NETWORK_COLUMNS:])
    finally:
        batches.close()


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
