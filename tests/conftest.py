"""Tests import `src` from the root of the repository, and before MindSpore, for which it sets environment variables."""
import logging
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import src  # noqa: E402, F401


@pytest.fixture(autouse=True)
def own_logging():
    """Give the program's logger back as it was: the scripts send it to standard output."""
    logger = logging.getLogger("faster_rcnn")
    before = logger.handlers, logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate, logger.level = before
