"""Detect objects on images: python infer.py --config CONFIG --checkpoint_path FILE --image IMAGE_FOLDER_OR_PATTERN
--device_target ... (--help lists all).
"""
import json
import logging
import os
import sys
import time
from collections import Counter

from src.config.command_line import parse_infer_args
from src.errors import UserError
from src.run.launch import launch

logger = logging.getLogger("faster_rcnn")

PROGRESS_SECONDS = 10.0


def main(cfg, group, _):
    """Draw the detections on each image, and list them in detections.json.

    Raises:
        UserError: for a mistake that the user can fix, see `src.run.launch.run`.
    """
    # Imported here, because MindSpore reads the environment that `launch` has prepared.
    from src.dataset.image_paths import drawing_names, find_images
    from src.detector import Predictor, class_names, load_detector
    from src.run.compile_cache import inference_graphs, use_compile_cache
    from src.run.device import set_up_device
    from src.run.files import atomic_write, make_folder, remove_partial, writing_into
    from src.visualization.fonts import find_fonts

    if group.size > 1:
        raise UserError("infer.py is one process; start it without mpirun or msrun.")
    paths = find_images(cfg.image)
    drawings = [os.path.join(cfg.save_dir, name) for name in drawing_names(paths, cfg.save_dir)]
    remove_partial(make_folder(cfg.save_dir))
    cfg = set_up_device(cfg, group)
    network, checkpoint = load_detector(cfg)
    names = class_names(cfg.data, checkpoint)
    fonts = find_fonts(names, cfg.font)
    use_compile_cache(cfg, inference_graphs(cfg.data.canvases), len(names))
    predictor = Predictor(network, cfg)
    listing = os.path.join(cfg.save_dir, "detections.json")
    with writing_into(cfg.save_dir, "the results"):
        found = [detect_and_draw(predictor, names, fonts, *image) for image in read_all(paths, drawings)]
        with atomic_write(listing) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write("[" + ",\n ".join(json.dumps(entry, allow_nan=False) for entry in found) + "]\n")
    counts = Counter(detection["category"] for entry in found for detection in entry["detections"])
    logger.info("%d detections with a score above %g%s", sum(counts.values()), cfg.infer.conf_threshold,
                "".join(f", {count} {name}" for name, count in counts.most_common()))
    logger.info("drawn into %s, listed in %s", cfg.save_dir, listing)


def read_all(paths, drawings):
    """Yield (path, drawing, image) of each readable image; show and log the progress.

    Raises:
        UserError: at the end, if no image could be read.
    """
    from src.dataset.image import UnreadableImageError, read_image
    from src.run.launch import progress_bar

    start = last_report = time.perf_counter()
    unreadable = 0
    with progress_bar("detecting", "image", len(paths)) as bar:
        for number, (path, drawing) in enumerate(zip(paths, drawings)):
            try:
                image = read_image(path)
            except UnreadableImageError as error:
                logger.warning("%s %s", path, error)
                unreadable += 1
            else:
                yield path, drawing, image
            bar.update()
            now = time.perf_counter()
            if bar.disable and now - last_report >= PROGRESS_SECONDS:
                logger.info("%d of %d images, %.2f images/s", number + 1, len(paths), (number + 1) / (now - start))
                last_report = now
    if unreadable == len(paths):
        raise UserError(f"not one of the {len(paths)} images can be read; above is the reason for each.")
    logger.info("detected on %d images%s", len(paths) - unreadable, f"; {unreadable} could not be read" * (unreadable > 0))


def detect_and_draw(predictor, names, fonts, path, drawing, image):
    """Detect objects on one image (h, w, 3) uint8 RGB, draw them into the file `drawing`, and return the image's entry in
    detections.json, a dict."""
    from deploy.drawing import draw_boxes
    from src.evaluation.coco import result_rows
    from src.visualization.images import write_image

    boxes, scores, labels, finite = predictor.detect(image)
    if not finite:
        logger.warning("%s: the network gave scores that are not finite", path)
    write_image(drawing, draw_boxes(image, boxes, scores, labels, names, fonts))
    rows = result_rows(path, boxes, scores, labels, range(len(names)))
    return {"file": path, "drawing": drawing, "height": image.shape[0], "width": image.shape[1], "detections": [
        {"bbox": row["bbox"], "category": names[row["category_id"]], "label": row["category_id"], "score": row["score"]}
        for row in rows]}


if __name__ == "__main__":
    sys.exit(launch(main, parse_infer_args))
