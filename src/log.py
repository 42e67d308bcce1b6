"""The program's log: plain lines on standard output."""
import logging
import sys


def set_up_logging():
    """Send the records of the logger `faster_rcnn` to standard output, one line each with the time of day."""
    logger = logging.getLogger("faster_rcnn")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.handlers = [handler]
    return logger
