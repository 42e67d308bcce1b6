"""Runs a detector on an evaluation set and scores its detections."""
from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from src.config import Config
from src.dataset.annotations import CocoDataset
from src.dataset.loader import EvalLoader
from src.errors import UserError
from src.evaluation.coco import Evaluation, result_rows, score
from src.evaluation.detections import detections_of_image, overlapped
from src.run.distributed import Group
from src.run.files import atomic_write, make_folder, writing_into
from src.run.launch import progress_bar

logger = logging.getLogger("faster_rcnn")

PROGRESS_SECONDS = 10.0


def unreadable_image(path: str, reason: object) -> UserError:
    """Return the error for a validation image that cannot be read."""
    return UserError(f"Image {path}: {reason}; fix it, or leave such images out of the evaluation with --skip_bad_images True.")


def evaluate(predict: Callable, loader: EvalLoader, dataset: CocoDataset, cfg: Config, group: Group) -> Evaluation | None:
    """Run detection once on every image of the data set, and score the detections.

    With several processes, each processes a part of the images, and rank 0 scores all detections.

    Args:
        predict: function of a batch's image and valid_size that returns NumPy arrays: boxes (B, R, K, 4) float32 in canvas pixels
            and scores (B, R, K) float32.
        loader: loader of the data set.
        dataset: the data set with its annotations.
        cfg: the configuration; infer.* and skip_bad_images are used.

    Returns:
        The result of `coco.score`, with `skipped_images`, `skipped_image_ids` and the paths of the data set (`annotations`,
        `image_folder`) added to its metrics; None on ranks other than 0.

    Raises:
        UserError: an image cannot be read and cfg.skip_bad_images is off; no image can be read.
        RuntimeError: the loader did not deliver every image exactly once.
    """
    with progress_bar("evaluation", "image", loader.num_images, group.rank) as bar:
        own = _detect(predict, loader, dataset, cfg, bar)
    parts = group.gather(own)
    if parts is None:
        return None
    results, image_ids, skipped = _merge(parts, dataset.records)
    if not image_ids:
        raise UserError(f"no image of {dataset.annotation_path} can be read; check the image folder {dataset.image_dir}.")
    evaluation = score(dataset.coco_json, results, image_ids, dataset.names, dataset.category_ids)
    evaluation.metrics.update(skipped_images=len(skipped), skipped_image_ids=skipped,
                              annotations=os.path.abspath(dataset.annotation_path),
                              image_folder=os.path.abspath(dataset.image_dir))
    return evaluation


def results_folder(save_dir: str, checkpoint: str, dataset: CocoDataset) -> str:
    """Return the folder for a checkpoint's results on a data set: <save_dir>/eval/<checkpoint>/<annotation file>, both without
    extension. If it has the results of another checkpoint or annotation path, `_2`, `_3`, ... is appended, which is logged."""
    files = [dataset.annotation_path] if os.path.isfile(dataset.annotation_path) else dataset.annotation_path.split(" and ")
    name = Path(files[0]).stem + f"+{len(files) - 1}" * (len(files) > 1)
    base = os.path.join(save_dir, "eval", Path(checkpoint).stem, name)
    paths = [os.path.abspath(path) for path in (checkpoint, dataset.annotation_path)]
    for folder in itertools.chain([base], (f"{base}_{number}" for number in itertools.count(2))):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # without complete results
            earlier = json.loads(Path(folder, "metrics.json").read_text(encoding="utf-8"))
            if [os.path.abspath(earlier[key]) for key in ("checkpoint", "annotations")] != paths:
                continue
        break
    if folder != base:
        logger.info("%s has the results of another checkpoint or data set; these are written into %s", base, folder)
    return folder


def write_results(folder: str, metrics: dict, results: list[dict], annotations: dict | None = None) -> None:
    """Write metrics.json, bbox_results.json (COCO's result format) and, if given, the `annotations` of a data set with several
    annotation files as annotations.json to `folder`, which is created if it does not exist.

    Raises:
        UserError: the files cannot be written, for example because the disk is full.
    """
    make_folder(folder)
    with writing_into(folder, "the results"):
        first = {"annotations.json": annotations} if annotations else {}
        for name, content in {**first, "bbox_results.json": results, "metrics.json": metrics}.items():
            with atomic_write(os.path.join(folder, name)) as temporary, open(temporary, "w", encoding="utf-8") as file:
                # json.dumps uses the C encoder, which is 5x faster than json.dump.
                file.write(json.dumps(content, allow_nan=False))


def _detect(predict, loader, dataset, cfg, bar):
    """Return a list of (image id, result rows), the ids of unreadable images, and the number of images with non-finite scores."""
    found, skipped, not_finite = [], [], []

    def outputs():
        for batch, count in zip(loader.batches(), loader.counts):
            unreadable = batch.image_id[:count][~batch.readable[:count]].tolist()
            if unreadable and not cfg.skip_bad_images:
                path = next(record.path for record in dataset.records if record.image_id == unreadable[0])
                reason = loader.unreadable.get(path, "cannot be read, see above")  # worker processes only log the reason
                raise unreadable_image(path, reason)
            skipped.extend(unreadable)
            yield batch, count, *predict(batch.image, batch.valid_size)

    def add_results(batch, count, boxes, scores):
        for row in np.flatnonzero(batch.readable[:count]):
            image_id = int(batch.image_id[row])
            if not np.isfinite(scores[row]).all():
                not_finite.append(image_id)
            own = detections_of_image(boxes[row], scores[row], cfg.infer, batch.scale[row], batch.original_size[row])
            found.append((image_id, result_rows(image_id, *own, dataset.category_ids)))
        return count

    start = last_report = time.perf_counter()
    done = 0
    for count in overlapped(add_results, outputs()):
        done += count
        bar.update(count)
        now = time.perf_counter()
        if bar.disable and now - last_report >= PROGRESS_SECONDS or done == loader.num_images:
            logger.info("evaluated %d of %d images, %.2f images/s", done, loader.num_images, done / (now - start))
            last_report = now
    return found, skipped, len(not_finite)


def _merge(parts, records):
    """Merge the results of `_detect` of all processes into result rows, image ids and skipped ids in the order of the records."""
    place = {record.image_id: number for number, record in enumerate(records)}
    found = sorted((image for part, _, _ in parts for image in part), key=lambda image: place[image[0]])
    skipped = sorted((image_id for _, part, _ in parts for image_id in part), key=place.__getitem__)
    image_ids = [image_id for image_id, _ in found]
    done, wanted = Counter(image_ids + skipped), Counter(list(place))
    if done != wanted:
        raise RuntimeError(f"internal error: each image must be evaluated once, but images are missing (ids "
                           f"{list(wanted - done)[:5]} ...) or repeated (ids {list(done - wanted)[:5]} ...)")
    not_finite = sum(count for _, _, count in parts)
    if skipped:
        logger.warning("%d of %d images could not be read and are not scored", len(skipped), len(records))
    if not_finite:
        logger.warning("the network computed non-finite scores for %d of %d images", not_finite, len(records))
    return [row for _, rows in found for row in rows], image_ids, skipped
