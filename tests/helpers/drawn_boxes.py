"""Samples in which channel k shows box k, so that each box can be located in a transformed image."""
import numpy as np

from src.dataset.resize import Sample


def rng_of(*seed):
    return np.random.default_rng(seed)


def sample_of(image, boxes=()):
    """Return a sample with labels 0, 1, ..."""
    return Sample(image, np.float32(boxes).reshape(-1, 4), np.arange(len(boxes), dtype=np.int32))


def same(one, other):
    """Return whether two samples have the same pixels, boxes, labels and scales."""
    return all(np.array_equal(first, second) for first, second in zip(one, other))


def is_near(count, number, chance):
    """Return whether `count` of `number` events is within five standard deviations of the expected number."""
    return abs(count / number - chance) < 5 * np.sqrt(chance * (1 - chance) / number)


def draw_sample(rng, whole=False):
    """Return a sample of random size with up to three boxes of at least 3 pixels, labels 0, 1, 2, each filled in its channel.

    A pixel is filled if its centre is inside the box. With `whole`, corners are whole pixels.
    """
    height, width = rng.integers(8, 50, 2)
    count = rng.integers(0, 4)
    sides = rng.uniform(3, np.array([width, height]) + 1, (count, 2)).clip(max=[width, height])
    corners = rng.uniform(0, 1, (count, 2)) * ([width, height] - sides)
    boxes = np.column_stack([corners, corners + sides])
    if whole:
        boxes = boxes.round()
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for channel, (x1, y1, x2, y2) in enumerate(boxes):
        rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
        image[np.ix_((y1 < rows) & (rows < y2), (x1 < columns) & (columns < x2), [channel])] = 255
    return Sample(image, boxes.astype(np.float32), np.arange(count, dtype=np.int32))


def check_extents(sample, level=1):
    """Check that each box is within a pixel of the pixels in its channel that are at least `level`."""
    height, width = sample.image.shape[:2]
    assert sample.image.shape == (height, width, 3) and sample.image.dtype == np.uint8
    assert sample.boxes.shape == (len(sample.labels), 4) and sample.boxes.dtype == np.float32 and sample.labels.dtype == np.int32
    assert (sample.boxes >= 0).all()
    assert (sample.boxes <= np.array([width, height, width, height]) * (1 + 1e-6)).all()  # float32 rounding of scaled boxes
    for box, label in zip(sample.boxes, sample.labels):
        rows, columns = np.nonzero(sample.image[..., label] >= level)
        extent = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert abs(box - extent).max() <= 1, (box, extent)
