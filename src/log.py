"""The program's log: plain lines on standard output."""
import logging
import sys


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
    handler = logging.StreamHandler(sys.stdout)
    sender = f"rank {rank} " if rank else ""
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {sender}%(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.handlers = [handler]
    return logger
