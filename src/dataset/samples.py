"""Records -> samples -> batches, as NumPy arrays.

A sample is a function of (seed, epoch, record) alone. It does not depend on the worker, the batch or what came before, so a run
that is resumed at any step sees what an uninterrupted one would have seen.
"""
from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from src.dataset.annotations import Record
from src.dataset.image import UnreadableImageError, read_image
from src.dataset.transforms import apply, fitted_size, pad_boxes
from src.errors import UserError

logger = logging.getLogger("faster_rcnn.share")


class Batch(NamedTuple):
    """B images with their annotations, at most G boxes each. A loader makes MindSpore tensors of the first five, which the
    network reads; the others stay arrays.

    Attributes:
        image: (B, H, W, 3) uint8 RGB, each image at the top left of its canvas, zeros beside it.
        valid_size: (B, 2) float32, height and width of the image on its canvas.
        boxes: (B, G, 4) float32 xyxy, canvas pixels; zeros where padded.
        labels: (B, G) int32, 0..K-1.
        mask: (B, G) bool, False where boxes and labels are padding.
        image_id: (B,) int64.
        original_size: (B, 2) int32, height and width of the image in its file.
        scale: (B, 2) float32, canvas pixels per original pixel, (sy, sx).
        readable: (B,) bool, False where a file could not be read: in training the next readable image has taken its place, in
            evaluation it is black.
    """
    image: np.ndarray
    valid_size: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    image_id: np.ndarray
    original_size: np.ndarray
    scale: np.ndarray
    readable: np.ndarray


@dataclass
class SampleMaker:
    """Makes samples of records: tuples in the order of `Batch`, without the batch axis.

    Attributes:
        records: of which samples are made.
        seed: of the augmentation.
        item_transforms: the configuration's list.
        target_size: (H, W) of the canvas.
        padding_size: G, length of the box lists.
        padding_value: label of the padding.
        unreadable: {path: reason} of the files that could not be read so far; each is logged once.
    """
    records: list[Record]
    seed: int
    item_transforms: list[dict]
    target_size: tuple[int, int]
    padding_size: int
    padding_value: int
    unreadable: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, index: int) -> np.ndarray | None:
        """The image of a record, (h, w, 3) uint8 RGB, or None where its file cannot be read."""
        record = self.records[index]
        try:
            return read_image(record.path, (record.height, record.width))
        except UnreadableImageError as error:
            with self.lock:
                if record.path not in self.unreadable:
                    self.unreadable[record.path] = str(error)
                    logger.warning("%s %s", record.path, error)
            return None

    def sample(self, canvas: np.ndarray, epoch: int, index: int, image: np.ndarray, readable: bool = True) -> tuple:
        """The sample of a record whose image is drawn, transformed, onto `canvas` (H, W, 3) uint8."""
        rng = np.random.default_rng([self.seed, epoch, index])
        valid_size, boxes, scale = apply(self.item_transforms, image, self.records[index].boxes, rng, canvas)
        return self._sample(canvas, index, valid_size, boxes, scale, readable)

    def blank(self, canvas: np.ndarray, index: int) -> tuple:
        """The sample of a record whose file cannot be read, with a black image."""
        record = self.records[index]
        size = record.height, record.width
        canvas[:] = 0
        valid_size = np.array(fitted_size(size, self.target_size), dtype=np.float32)
        scale = valid_size / np.array(size, dtype=np.float32)
        return self._sample(canvas, index, valid_size, record.boxes * scale[[1, 0, 1, 0]], scale, readable=False)

    def _sample(self, canvas, index, valid_size, boxes, scale, readable):
        record = self.records[index]
        boxes, labels, mask = pad_boxes(boxes, record.labels, self.padding_size, self.padding_value)
        return (canvas, valid_size, boxes, labels, mask, np.int64(record.image_id),
                np.array([record.height, record.width], dtype=np.int32), scale, np.bool_(readable))


class TrainSamples:
    """All epochs of a run, each a permutation of the records cut to whole batches of all processes.

    Args:
        maker: of the samples.
        batch_size: B, of one process.
        epochs: of the run.
        rank: of this process, which takes its own rows of each batch of all processes.
        size: number of processes.
    """

    def __init__(self, maker: SampleMaker, batch_size: int, epochs: int, rank: int, size: int):
        self.maker, self.batch_size = maker, batch_size
        self.steps_per_epoch = len(maker.records) // (batch_size * size)
        self.epochs, self.rank, self.size = epochs, rank, size
        self._order = (-1, np.zeros(0, np.int64))  # of the epoch asked for last

    def num_batches(self) -> int:
        """Batches of this process."""
        return self.steps_per_epoch * self.epochs

    def sample(self, position: int, canvas: np.ndarray) -> tuple:
        """The sample at a position of this process's stream, with its image on `canvas` (H, W, 3) uint8.

        A record whose file cannot be read is replaced by the next readable one.

        Raises:
            UserError: not one file can be read.
        """
        epoch, place = divmod(position, self.batch_size * self.steps_per_epoch)
        step, row = divmod(place, self.batch_size)
        count = len(self.maker.records)
        wanted = int(self._order_of(epoch)[(step * self.size + self.rank) * self.batch_size + row])
        for index in (*range(wanted, count), *range(wanted)):
            image = self.maker.read(index)
            if image is not None:
                return self.maker.sample(canvas, epoch, index, image, readable=index == wanted)
        raise UserError(f"not one of the {count} training images can be read; above is the reason for each.")

    def _order_of(self, epoch):
        known, order = self._order  # read once: other threads may replace it
        if known != epoch:
            order = epoch_order(self.maker.seed, epoch, len(self.maker.records))
            self._order = (epoch, order)
        return order


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The records of an epoch in the order in which they are drawn: a permutation of range(count), (count,) int64."""
    return np.random.default_rng([seed, epoch]).permutation(count)


class EvalSamples:
    """Every record once, in order; the last batch is filled up with the last record. An unreadable file becomes a black image.

    Args:
        maker: of the samples.
        batch_size: B, of one process.
        rank: of this process, which takes every size-th batch: an image has the same neighbours whatever the number of processes.
        size: number of processes.
    """

    def __init__(self, maker: SampleMaker, batch_size: int, rank: int, size: int):
        self.maker, self.batch_size = maker, batch_size
        self.rank, self.size = rank, size

    def num_batches(self) -> int:
        """Batches of this process."""
        return len(range(self.rank, -(-len(self.maker.records) // self.batch_size), self.size))

    def record_at(self, position: int) -> int:
        """Number of the record at a position, which may lie past the last one."""
        batch, row = divmod(position, self.batch_size)
        return (batch * self.size + self.rank) * self.batch_size + row

    def sample(self, position: int, canvas: np.ndarray) -> tuple:
        """The sample at a position of this process's stream, with its image on `canvas` (H, W, 3) uint8."""
        index = min(self.record_at(position), len(self.maker.records) - 1)
        image = self.maker.read(index)
        return self.maker.blank(canvas, index) if image is None else self.maker.sample(canvas, 0, index, image)


class BatchSource:
    """Number of a batch -> Batch of arrays, for several workers at once.

    Args:
        samples: TrainSamples or EvalSamples.
    """

    def __init__(self, samples: TrainSamples | EvalSamples):
        self.samples = samples

    def __len__(self) -> int:
        return self.samples.num_batches()

    def __getitem__(self, number: int) -> Batch:
        size = self.samples.batch_size
        # Images are drawn where they stay: collecting them afterwards would copy each once more.
        images = np.empty((size, *self.samples.maker.target_size, 3), dtype=np.uint8)
        rows = [self.samples.sample(int(number) * size + row, canvas) for row, canvas in enumerate(images)]
        return Batch(images, *(np.stack(column) for column in list(zip(*rows))[1:]))
