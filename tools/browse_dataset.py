"""Draw training images as the network sees them: python tools/browse_dataset.py --config CONFIG (--help lists all).

The images come from the training loader. They are drawn after augmentation, with the remaining boxes, on one contact sheet.
"""
import argparse
import itertools
import logging
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.config import Config, with_settings  # noqa: E402
from src.config.command_line import parse_train_args  # noqa: E402
from src.errors import UserError  # noqa: E402
from src.run.distributed import Group  # noqa: E402
from src.run.files import prepare_output  # noqa: E402
from src.run.launch import launch  # noqa: E402

logger = logging.getLogger("faster_rcnn")

MAX_IMAGES = 200
ENDINGS = (".jpg", ".png")
TILE = 480  # pixels of the longer side of each image
COLUMNS = 4


def main(arguments: tuple, group: Group, _) -> None:
    # Imported here because MindSpore reads the environment that `launch` prepares.
    from src.dataset.loader import TrainLoader
    from src.dataset.splits import open_training_set
    from src.visualization.fonts import find_fonts
    from src.visualization.images import contact_sheet, write_image

    args, cfg = arguments
    prepare_output(args.output)
    dataset = open_training_set(cfg, group)
    fonts = find_fonts(dataset.names, cfg.font)
    # With batch size 1, images keep the random order of the epoch, whatever their canvases.
    loader = TrainLoader(dataset, with_settings(cfg, {"batch_size": 1, "accumulate_steps": 1, "epochs": args.epoch}))
    batches = itertools.islice(loader.batches((args.epoch - 1) * loader.steps_per_epoch), args.count)
    records = {record.image_id: record for record in loader.records}
    images, captions = zip(*(_draw_sample(batch, dataset.names, records, fonts) for batch in batches))
    try:
        write_image(args.output, contact_sheet(list(images), list(captions), COLUMNS, fonts))
    except OSError as error:
        raise UserError(f"{args.output} could not be written ({error.strerror}); give another --output.") from error
    logger.info("%d of %d training images of epoch %d with seed %d: %s", len(images), len(loader.records), args.epoch, cfg.seed,
                args.output)


def _draw_sample(batch, names, records, fonts):
    """Return, for a batch of one, its image (h, w, 3) uint8 with boxes, and the lines of its caption."""
    from deploy.drawing import draw_boxes
    from src.visualization.images import fit

    batch = type(batch)(*(np.asarray(column)[0] for column in batch))
    image, boxes = fit(batch.image, batch.boxes[batch.mask], TILE, TILE)
    height, width = batch.original_size
    return draw_boxes(image, boxes, None, batch.labels[batch.mask], names, fonts), [
        f"{os.path.basename(records[int(batch.image_id)].path)} (id {batch.image_id})",
        f"boxes: {batch.mask.sum()}; {width}x{height} pixels scaled by {batch.scale[1]:.2f}"]


def parse_args() -> tuple[argparse.Namespace, Config]:
    """Return the tool's arguments and the configuration, which they determine together with train.py's arguments."""
    parser = argparse.ArgumentParser(
        description="Draw training images as the network sees them, after augmentation, with their boxes, on one sheet.",
        epilog="All flags of train.py work as well, for example --seed 7 or -o data.dataset_dir=/data/coco2017.",
        allow_abbrev=False)
    parser.add_argument("--count", type=int, default=16, help=f"images, at most {MAX_IMAGES} (default: %(default)s)")
    parser.add_argument("--epoch", type=int, default=1, help="of which the first images are drawn, from 1 (default: %(default)s)")
    parser.add_argument("--output", default=os.path.join("output", "browse.jpg"), metavar="FILE",
                        help="the sheet, .jpg or .png (default: %(default)s)")
    args, others = parser.parse_known_args()
    if not 1 <= args.count <= MAX_IMAGES or args.epoch < 1:
        raise UserError(f"--count must be from 1 to {MAX_IMAGES} and --epoch at least 1, not {args.count} and {args.epoch}.")
    if not args.output.endswith(ENDINGS):
        raise UserError(f"--output is {args.output!r}; its name must end in {' or '.join(ENDINGS)}.")
    return args, parse_train_args(others)


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
