"""Records -> samples -> batches, as NumPy arrays.

A sample is a function of (seed, epoch, record) alone. It does not depend on the worker, the batch or what came before, so a run
that is resumed at any step sees what an uninterrupted one would have seen.
"""
from __future__ import annotations

import functools
import logging
import threading
from typing import NamedTuple

import numpy as np

from src.dataset.annotations import Record
from src.dataset.image import UnreadableImageError, read_image
from src.dataset.transforms import apply, fitted_size, pad_boxes, padding_of

logger = logging.getLogger("faster_rcnn")
share_logger = logging.getLogger("faster_rcnn.share")


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


class Samples:
    """Numbers of batches -> batches of arrays, for several workers at once: what the two loaders share.

    Of `size` processes, this is number `rank`.

    Attributes:
        records: of which samples are made.
        padding_size: G, length of the box lists: the configuration's, or the most boxes that a record has.
        unreadable: {path: reason} of the files that could not be read so far; each is logged once.
    """

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
            boxes = record.boxes * scale[[1, 0, 1, 0]]
        else:
            rng = np.random.default_rng([self.cfg.seed, epoch, index])
            valid_size, boxes, scale = apply(self.item_transforms, image, record.boxes, rng, canvas)
        return (valid_size, *pad_boxes(boxes, record.labels, self.padding_size, self.padding_value), np.int64(record.image_id),
                np.array(size, dtype=np.int32), scale, np.bool_(readable))
