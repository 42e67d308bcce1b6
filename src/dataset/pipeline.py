"""Batches for training and evaluation from MindSpore's data pipeline, with worker processes and prefetch."""
import functools
import logging
import os

import mindspore.dataset as ds
from mindspore.dataset.engine import datasets_user_defined

from src.dataset.annotations import training_records
from src.dataset.shared_memory import megabytes_of_queues, megabytes_of_rows, require_shared_memory
from src.dataset.sources import COLUMNS, BatchSource, EvalSource, SampleMaker, TrainSource
from src.dataset.transforms import padding_of
from src.errors import UserError

logger = logging.getLogger("faster_rcnn")

# MindSpore keeps the number of every item of a run, 8 bytes each. A thousand epochs of COCO are fewer.
MAX_ROWS = 2**27


class _WaitingQueue(datasets_user_defined._SharedQueue):
    """A worker's queue in which `empty` waits for a row to come.

    MindSpore sleeps 0.1 s whenever it finds a queue empty, which caps the pipeline at what the queues hold every 0.1 s.
    """

    def empty(self):
        return not self._poll(0.1)


datasets_user_defined._SharedQueue = _WaitingQueue


class TrainPipeline:
    """Shuffled, augmented batches of all epochs of a run, from step `start_step` on.

    An epoch is a permutation of the records cut to whole batches of all processes, of which this one (number `rank` of
    `size`) gets its rows. The epochs are one stream, so that workers start
    once a run, and a run that starts at step k gives the batches that one from step 0 gives from its step k on.

    Iterating yields tuples of Tensors in the order of `sources.COLUMNS`:
    image uint8 (B, H, W, 3) RGB; valid_size float32 (B, 2) (height, width) of the unpadded area; boxes float32
    (B, G, 4) canvas pixels; labels int32 (B, G); mask bool (B, G); image_id int64 (B,); original_size int32 (B, 2)
    (height, width); scale float32 (B, 2) (sy, sx) canvas pixels per original pixel; unreadable int32 (B,), the index in
    `records` of the record whose file could not be read and whose place the next readable one took, -1 where all is well,
    NOTHING_READABLE where no record can be read.

    Attributes: records: those with boxes, the ones that train; padding_size: G; steps_per_epoch; start_step: where
    iteration begins, which may be set once steps_per_epoch is known.
    Raises UserError when no record has a box, a batch is larger than the data set, the run is beyond reason, or
    there is too little shared memory.
    """

    def __init__(self, dataset, cfg, start_step=0, rank=0, size=1):
        self.records = training_records(dataset)
        self.steps_per_epoch = len(self.records) // (cfg.batch_size * size)
        if self.steps_per_epoch == 0:
            processes = f" for each of {size} processes" if size > 1 else ""
            raise UserError(f"batch_size is {cfg.batch_size}{processes}, but {dataset.annotation_path} has only "
                            f"{len(self.records)} images to train on: choose a smaller batch_size.")
        rows = self.steps_per_epoch * cfg.batch_size * cfg.epochs
        if rows > MAX_ROWS:
            raise UserError(f"epochs is {cfg.epochs}, which makes {rows} images for a process, more than {MAX_ROWS}: choose a "
                            "smaller number of epochs.")
        self._cfg = cfg
        self.start_step = start_step
        maker = _sample_maker(self.records, cfg, cfg.data.train_transforms)
        self.padding_size = maker.padding_size
        self._source = TrainSource(maker, cfg.batch_size, self.steps_per_epoch, cfg.epochs, rank, size)
        # The workers of an evaluation work while those of the training wait.
        _check_shared_memory(self._source, cfg, size, streams=2 if cfg.run_eval else 1)

    def __iter__(self):
        return _batches(self._source, self.start_step, self._cfg)


class EvalPipeline:
    """Batches of every record once, in order, also of those without boxes; columns as in TrainPipeline.

    Of several processes, number `rank` of `size` gets every size-th batch. The last batch is filled up with repeats of the
    last record: rows from `num_images` (of this process) on are to be ignored. Where `unreadable` is not -1 the image is
    black.

    Raises UserError when there is too little shared memory.
    """

    def __init__(self, dataset, cfg, rank=0, size=1):
        self.records = dataset.records
        self._cfg = cfg
        maker = _sample_maker(self.records, cfg, cfg.data.eval_transforms)
        self.padding_size = maker.padding_size
        self._source = EvalSource(maker, cfg.batch_size, rank, size)
        _check_shared_memory(self._source, cfg, size)
        self.num_images = sum(self._source.record_of(i) < len(self.records) for i in range(len(self._source)))

    def __iter__(self):
        return _batches(self._source, 0, self._cfg)


def _sample_maker(records, cfg, transforms):
    configured, padding_value = padding_of(transforms.item_transforms)
    padding_size = max(configured, max(len(record.boxes) for record in records))
    if padding_size > configured:
        logger.info("LabelsPadding.padding_size grows from %d to %d, the most boxes that an image has", configured,
                    padding_size)
    return SampleMaker(records, cfg.seed, transforms.item_transforms, tuple(cfg.data.target_size), padding_size,
                       padding_value)


def _queue_items(source, cfg):
    """How the rows of a source reach this process: number of workers, rows an item of their queues, MB of such an item."""
    workers = _worker_count(cfg.num_workers)
    whole = workers == 1 or megabytes_of_rows(source, cfg.batch_size) <= cfg.max_rowsize
    # Where a batch takes more shared memory than is allowed, its rows travel one by one and MindSpore joins them.
    size = cfg.batch_size if whole else 1
    return workers, size, min(cfg.max_rowsize, megabytes_of_rows(source, size))


def _check_shared_memory(source, cfg, size, streams=1):
    """Raises UserError when there is too little for `streams` like this one, on a machine with all `size` processes."""
    workers, _, megabytes = _queue_items(source, cfg)
    # MindSpore, too, counts on no more than 8 processes a machine.
    require_shared_memory(min(size, 8) * streams * megabytes_of_queues(workers, cfg.prefetch_size, megabytes))


def _batches(source, start, cfg):
    """Yield the batches of the source from number `start` on; ends the workers whenever the caller stops."""
    count = len(source) // cfg.batch_size - start
    if count <= 0:
        return  # to MindSpore, zero samples mean all of them
    ds.config.set_prefetch_size(cfg.prefetch_size)
    workers, size, megabytes = _queue_items(source, cfg)
    rows = ds.GeneratorDataset(BatchSource(source, size) if size == cfg.batch_size else source, COLUMNS,
                               sampler=ds.SequentialSampler(start * cfg.batch_size // size, count * cfg.batch_size // size),
                               num_parallel_workers=workers, python_multiprocessing=workers > 1, max_rowsize=megabytes)
    if size != cfg.batch_size:
        rows = rows.batch(cfg.batch_size, drop_remainder=True)
    iterator = rows.create_tuple_iterator(num_epochs=1, do_copy=False)
    try:
        for batch in iterator:
            yield tuple(batch)
    finally:
        iterator.release()


@functools.cache  # so that it is said once
def _worker_count(configured):
    """MindSpore refuses more workers than processors; 1 means the main process itself."""
    workers = min(max(configured, 1), os.cpu_count())
    if workers < configured:
        logger.info("num_workers is %d, but there are %d processors: %d workers are used", configured, os.cpu_count(),
                    workers)
    return workers
