"""The program's log: plain lines on standard output."""
import logging
import sys

from tqdm import tqdm

from src.progress_bar import is_terminal


class _BesideBars(logging.StreamHandler):
    """Takes progress bars off the terminal while it writes a line, and draws them again below."""

    def emit(self, record):
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def set_up_logging(rank=0):
    """Send the records of the logger `faster_rcnn` to standard output, one line each with the time of day.

    Of several processes only rank 0 reports; what concerns one process's share of the data alone goes to the logger
    `faster_rcnn.share`, which speaks on every rank.
    """
    if hasattr(sys.stdout, "reconfigure"):
        # A file name may have characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    logger = logging.getLogger("faster_rcnn")
    logger.setLevel(logging.INFO if rank == 0 else logging.ERROR)
    logging.getLogger("faster_rcnn.share").setLevel(logging.INFO)
    logger.propagate = False
    handler = _BesideBars(sys.stdout) if is_terminal(sys.stdout) else logging.StreamHandler(sys.stdout)
    sender = f"rank {rank} " if rank else ""
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {sender}%(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.handlers = [handler]
    return logger
