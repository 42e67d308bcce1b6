"""Tests import `src` from the root of the repository, and before MindSpore, for which it sets environment variables."""
import logging
import sys
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import src  # noqa: E402, F401


class FolderScheduling(LoadScopeScheduling):
    """With -n, a folder's tests stay in one process, for the runs that they share."""

    def _split_scope(self, nodeid):
        return nodeid.partition("::")[0].rpartition("/")[0]


def pytest_xdist_make_scheduler(config, log):
    return FolderScheduling(config, log)


@pytest.fixture(autouse=True)
def own_logging():
    """Give the program's logger back as it was: the scripts send it to standard output."""
    logger = logging.getLogger("faster_rcnn")
    before = logger.handlers, logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate, logger.level = before
