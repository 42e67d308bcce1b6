"""Compare two runs or evaluations on one page: python tools/compare.py RUN RUN (--help lists all)."""
import argparse
import logging
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.errors import UserError  # noqa: E402
from src.run.files import prepare_output  # noqa: E402
from src.run.launch import launch  # noqa: E402

logger = logging.getLogger("faster_rcnn")


def main(args: argparse.Namespace, *_) -> None:
    # Imported here because OpenCV reads the environment that `launch` prepares.
    from src.report.comparison import open_dataset, read_evaluation, write_comparison

    prepare_output(args.output)
    dataset, stored = open_dataset([read_evaluation(folder) for folder in (args.a, args.b)], args.annotations, args.images)
    try:
        summary = write_comparison(args.output, stored, dataset)
    except OSError as error:
        raise UserError(f"{args.output} could not be written ({error.strerror}); give another --output.") from error
    logger.info("%s: %s", summary, args.output)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Write a page of two runs, or of two evaluations, on the same images: the settings that differ, curves and "
                    "numbers side by side, and the images that became better or worse in the second one.", allow_abbrev=False)
    parser.add_argument("a", metavar="RUN", help="run folder (its newest evaluation is used), or the folder of an evaluation")
    parser.add_argument("b", metavar="RUN", help="folder of the second run or evaluation")
    parser.add_argument("--annotations", default="", metavar="FILE", help="annotation file (default: what metrics.json says)")
    parser.add_argument("--images", default="", metavar="FOLDER", help="folder of the images (default: what metrics.json says)")
    parser.add_argument("--output", default=os.path.join("output", "comparison.html"), metavar="FILE",
                        help="page to write (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(launch(main, parse_args))
