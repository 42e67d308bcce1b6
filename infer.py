"""Detect objects on images: python infer.py --checkpoint_path FILE --image IMAGE_FOLDER_OR_PATTERN ... (--help lists all)."""
from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from src.config import Config
from src.config.command_line import INFER_DEFAULTS, parse_infer_args, with_checkpoint
from src.errors import UserError
from src.run.distributed import Group
from src.run.launch import launch

if TYPE_CHECKING:
    from src.detector import Predictor

logger = logging.getLogger("faster_rcnn")


def main(cfg: Config, group: Group, _: object) -> None:
    """Draw the detections on each image, and list them in detections.json. Raise a UserError after a mistake that the user can
    fix, see `src.run.launch.run`."""
    # Imported here, because MindSpore and OpenCV read the environment that `launch` has prepared.
    from deploy.images import EXTENSIONS, InputError, counts_of, drawing_names, find_files, listing_of
    from src.checkpoint import read_checkpoint
    from src.detector import Predictor
    from src.export.detector import class_names, load_detector
    from src.run.compile_cache import inference_graphs, use_compile_cache
    from src.run.device import set_up_device
    from src.run.files import atomic_write, make_folder, remove_partial, writing_into
    from src.visualization.fonts import find_fonts

    if group.size > 1:
        raise UserError("infer.py is one process; start it without mpirun or msrun.")
    if not cfg.image:
        raise UserError("there is nothing to detect on; give --image an image, a folder of images or a pattern such as "
                        "'folder/*.jpg'.")
    try:
        paths = find_files(cfg.image, EXTENSIONS, logger.info)
        drawings = {path: os.path.join(cfg.save_dir, name) for path, name in zip(paths, drawing_names(paths, cfg.save_dir))}
    except InputError as error:
        raise UserError(f"{error}.") from error
    remove_partial(make_folder(cfg.save_dir))
    checkpoint = read_checkpoint(cfg.checkpoint_path)
    cfg = set_up_device(with_checkpoint(cfg, checkpoint.settings, checkpoint.path), group)
    network = load_detector(cfg, checkpoint)
    names = class_names(cfg.data, checkpoint)
    fonts = find_fonts(names, cfg.font)
    use_compile_cache(cfg, inference_graphs(cfg.data.canvases), len(names))
    predictor = Predictor(network, cfg)
    threshold, default = cfg.infer.conf_threshold, INFER_DEFAULTS["infer.conf_threshold"]
    logger.info("confidence threshold: %g, %s; the configuration's infer.conf_threshold is only for evaluation", threshold,
                "infer.py's default (--conf_threshold changes it)" if threshold == default else "from the command line")
    listing = os.path.join(cfg.save_dir, "detections.json")
    with writing_into(cfg.save_dir, "the results"):
        found = detect_all(predictor, names, fonts, drawings)
        with atomic_write(listing) as temporary:
            Path(temporary).write_text(listing_of(found), encoding="utf-8")
    logger.info("at scores above %g: %s", threshold, counts_of(found))
    logger.info("drawn into %s, listed in %s", cfg.save_dir, listing)


def detect_all(predictor: Predictor, names: list[str], fonts: list, drawings: dict[str, str]) -> list[dict]:
    """Detect objects on images, draw them with the class names, log the detections of each image, and return the entries of
    detections.json. `drawings` has the paths of the images, in order, and of their drawings. A UserError is raised at the end if
    no image could be read."""
    from deploy.drawing import draw_boxes
    from deploy.images import counts_of, entry_of
    from src.dataset.image import UnreadableImageError, read_image
    from src.evaluation.detections import overlapped
    from src.export.detector import detect
    from src.run.launch import progress_bar
    from src.visualization.images import write_image

    def detections():
        for number, (path, drawing) in enumerate(drawings.items(), 1):
            try:
                image = read_image(path)
            except UnreadableImageError as error:
                yield number, path, drawing, None, error
            else:
                yield number, path, drawing, image, detect(predictor, image)

    def draw(number, path, drawing, image, found):
        if image is None:
            logger.warning("%s %s", path, found)
            return None
        boxes, scores, labels, finite = found
        if not finite:
            logger.warning("%s: the network returned scores that are not finite", path)
        write_image(drawing, draw_boxes(image, boxes, scores, labels, names, fonts))
        entry = entry_of(path, drawing, image, boxes, scores, labels, names)
        logger.info("%d of %d: %s: %s", number, len(drawings), path, counts_of([entry]))
        return entry

    entries = []
    with progress_bar("detecting", "image", len(drawings)) as bar:
        for entry in overlapped(draw, detections()):
            entries += [entry] if entry else []
            bar.update()
    unreadable = len(drawings) - len(entries)
    if not entries:
        raise UserError(f"not one of the {unreadable} images can be read; above is the reason for each.")
    logger.info("detected on %d images%s", len(entries), f"; {unreadable} could not be read" * (unreadable > 0))
    return entries


if __name__ == "__main__":
    sys.exit(launch(main, parse_infer_args))
