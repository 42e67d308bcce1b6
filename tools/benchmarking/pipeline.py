"""Compare the speed of the data pipeline with plain OpenCV, on generated JPEG files."""
import itertools
import os
import statistics
import tempfile
import time

import cv2
import numpy as np

from src.config import with_settings
from src.dataset.annotations import load_coco
from src.dataset.loader import TrainLoader
from src.dataset.resize import fitted_size
from tools.coco_output import write_annotations

HEIGHT, WIDTH = 480, 640
FILES = 64  # minimum number of files
BOXES = 7      # boxes per image, COCO's mean
IMAGES = 200   # images per round
ROUNDS = 5


def measure_pipeline(cfg):
    """Generate a data set and read it in both ways in turn. Both run without OpenCV's threads, see src.run.environment.

    Returns:
        Images per second of `TrainLoader`, and of decoding and resizing alone in this process: medians over ROUNDS.
    """
    size = fitted_size((HEIGHT, WIDTH), cfg.data.canvases[0])[::-1]
    # cfg may have too few epochs for a round.
    cfg = with_settings(cfg, {"epochs": 1000, "accumulate_steps": 1})
    with tempfile.TemporaryDirectory() as folder:
        loader = TrainLoader(load_coco(draw_data_set(folder, max(FILES, cfg.batch_size)), folder), cfg)
        paths = [record.path for record in loader.records]
        rates = [(loader_rate(loader, cfg), plain_rate(paths, size)) for _ in range(ROUNDS)]
    return tuple(map(statistics.median, zip(*rates)))


def loader_rate(loader, cfg):
    """Return the images per second of a newly started stream."""
    stream = loader.batches()
    # Skip the batches that are already in the queues; they would seem infinitely fast.
    for _ in range(10 + 2 * cfg.prefetch_size):
        next(stream)
    steps = max(1, IMAGES // cfg.batch_size)
    start = time.perf_counter()
    for _ in range(steps):
        next(stream)
    rate = steps * cfg.batch_size / (time.perf_counter() - start)
    stream.close()
    return rate


def plain_rate(paths, size):
    """Return the images per second when each is decoded and resized to `size` (width, height), sequentially."""
    start = time.perf_counter()
    for path in itertools.islice(itertools.cycle(paths), IMAGES):
        cv2.resize(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR), size, interpolation=cv2.INTER_LINEAR)
    return IMAGES / (time.perf_counter() - start)


def draw_data_set(folder, count):
    """Write photograph-like JPEG files of about 80 KB into `folder`; returns the path of their annotation file."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, count + 1):
        name = f"{number}.jpg"
        cv2.imwrite(os.path.join(folder, name), draw_image(rng), [cv2.IMWRITE_JPEG_QUALITY, 90])
        images.append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        for box in rng.uniform(20, HEIGHT / 2, (BOXES, 4)).tolist():
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, "bbox": box})
    path = os.path.join(folder, "instances.json")
    write_annotations(path, images, annotations, [{"id": 1, "name": "thing"}])
    return path


def draw_image(rng):
    """Return noise at several scales, as in photographs, plus sensor grain: (HEIGHT, WIDTH, 3) uint8."""
    image = rng.normal(0, 6, (HEIGHT, WIDTH, 3))
    for cells, strength in ((4, 50), (16, 25), (64, 12)):
        noise = rng.normal(0, strength, (cells * 3 // 4, cells, 3))
        image += cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + 120, 0, 255).astype(np.uint8)
