"""Random-access sources for MindSpore's GeneratorDataset: position in the run -> sample.

A sample is a function of (seed, epoch, record) alone. It does not depend on the worker, the batch or what came before,
so a run that is resumed at any step sees what an uninterrupted one would have seen.

Nothing is raised here in normal use: MindSpore carries an error out of a worker as a page of its own internals, so an
unreadable file travels as a number in the column `unreadable`.
"""
from dataclasses import dataclass

import numpy as np

from src.dataset.image import UnreadableImageError, read_image
from src.dataset.transforms import apply, fitted_size, pad_boxes

COLUMNS = ["image", "valid_size", "boxes", "labels", "mask", "image_id", "original_size", "scale", "unreadable"]
NOTHING_READABLE = -2  # in the column `unreadable`: no record at all could be read in place of this one


def order(seed, epoch, count):
    """The records of an epoch in the order in which they are drawn: a permutation of range(count), (count,) int64."""
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclass
class SampleMaker:
    """Makes rows of COLUMNS (without the batch axis) for records."""
    records: list
    seed: int
    item_transforms: list
    target_size: tuple    # (H, W) of the canvas
    padding_size: int
    padding_value: int

    def canvas(self, *rows):
        """Uninitialised memory for a image, or for an array of them."""
        return np.empty((*rows, *self.target_size, 3), dtype=np.uint8)

    def sample(self, canvas, epoch, index, image, unreadable=-1):
        """The row of record number `index` with the given image (h, w, 3) uint8 RGB, which is drawn onto `canvas`."""
        rng = np.random.default_rng([self.seed, epoch, index])
        return self._row(canvas, index, apply(self.item_transforms, image, self.records[index].boxes, rng, canvas), unreadable)

    def _row(self, canvas, index, transformed, unreadable):
        record = self.records[index]
        valid_size, boxes, scale = transformed
        boxes, labels, mask = pad_boxes(boxes, record.labels, self.padding_size, self.padding_value)
        return (canvas, valid_size, boxes, labels, mask, np.int64(record.image_id),
                np.array([record.height, record.width], dtype=np.int32), scale, np.int32(unreadable))

    def read(self, index):
        """The image of record number `index`, or None when its file cannot be read."""
        record = self.records[index]
        try:
            return read_image(record.path, record.height, record.width)
        except UnreadableImageError:
            return None  # the consumer of the column `unreadable` names the file and asks for the reason

    def blank(self, canvas, index, unreadable):
        """The row of record number `index` with a black image, which takes no memory whatever size is annotated."""
        record = self.records[index]
        size = record.height, record.width
        canvas[:] = 0
        valid_size = np.array(fitted_size(size, self.target_size), dtype=np.float32)
        scale = valid_size / np.array(size, dtype=np.float32)
        return self._row(canvas, index, (valid_size, record.boxes * scale[[1, 0, 1, 0]], scale), unreadable)


class TrainSource:
    """Position in the run -> sample; epochs follow each other without a gap, each in its own order.

    A record whose file cannot be read is replaced by the next readable one. Of each batch of all processes together, this
    one takes its own rows.

    Args: maker: SampleMaker; batch_size: of one process; steps_per_epoch, epochs: of the run; rank, size: of the processes.
    """

    def __init__(self, maker, batch_size, steps_per_epoch, epochs, rank=0, size=1):
        self.maker = maker
        self.batch_size = batch_size
        self.samples_per_epoch = batch_size * steps_per_epoch
        self.epochs = epochs
        self.rank, self.size = rank, size
        self._order = (None, None)  # of the epoch asked for last: (epoch, order)

    def __len__(self):
        return self.samples_per_epoch * self.epochs

    def __getitem__(self, position):
        return self.row(position, self.maker.canvas())

    def row(self, position, canvas):
        """The sample, with its image on `canvas`."""
        epoch, place = divmod(int(position), self.samples_per_epoch)
        count = len(self.maker.records)
        if self._order[0] != epoch:
            self._order = (epoch, order(self.maker.seed, epoch, count))
        step, row = divmod(place, self.batch_size)
        meant = int(self._order[1][(step * self.size + self.rank) * self.batch_size + row])
        for index in (*range(meant, count), *range(meant)):
            image = self.maker.read(index)
            if image is not None:
                return self.maker.sample(canvas, epoch, index, image, meant if index != meant else -1)
        return self.maker.blank(canvas, meant, NOTHING_READABLE)


class EvalSource:
    """Records in their order; positions past the last one repeat it. An unreadable file becomes a black image.

    Of several processes each takes every size-th batch: a image has the same neighbours whatever their number.

    Args: maker: SampleMaker; batch_size: of one process; rank, size: of the processes.
    """

    def __init__(self, maker, batch_size, rank=0, size=1):
        self.maker = maker
        self.batch_size = batch_size
        self.rank, self.size = rank, size
        batches = -(-len(maker.records) // batch_size)
        self.length = len(range(rank, batches, size)) * batch_size

    def __len__(self):
        return self.length

    def record_of(self, position):
        """Number of the record at a position, which may lie past the last one."""
        batch, row = divmod(int(position), self.batch_size)
        return (batch * self.size + self.rank) * self.batch_size + row

    def __getitem__(self, position):
        return self.row(position, self.maker.canvas())

    def row(self, position, canvas):
        """The sample, with its image on `canvas`."""
        index = min(self.record_of(position), len(self.maker.records) - 1)
        image = self.maker.read(index)
        if image is None:
            return self.maker.blank(canvas, index, index)
        return self.maker.sample(canvas, 0, index, image)


class BatchSource:
    """Number of a batch -> its columns. Images are drawn where they stay; MindSpore's batching would copy each once more.

    Args: source: TrainSource or EvalSource; batch_size: of which its length is a multiple.
    """

    def __init__(self, source, batch_size):
        self.source = source
        self.batch_size = batch_size

    def __len__(self):
        return len(self.source) // self.batch_size

    def __getitem__(self, number):
        first = int(number) * self.batch_size
        images = self.source.maker.canvas(self.batch_size)
        rows = [self.source.row(first + number, canvas) for number, canvas in enumerate(images)]
        return images, *(np.stack(column) for column in list(zip(*rows))[1:])
