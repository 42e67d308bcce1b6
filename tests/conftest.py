"""Fixtures and hooks for all tests."""
import gc
import logging
import sys

import pytest
from xdist.scheduler import LoadScopeScheduling

from src.run.environment import set_environment
from src.run.launch import run
from tests.helpers.paths import ROOT
from tests.helpers.scripts import end_started
from tests.helpers.skipping import needs_onednn_3, skip_or_fail

set_environment()  # before MindSpore is imported

# Test files in these folders share script runs that take long or need half of a machine's memory.
SHARING = ("tests/e2e/single", "tests/e2e/parallel", "tests/integration/parity")


def pytest_addoption(parser):
    parser.addoption("--device_target", choices=("Ascend", "GPU", "CPU"),
                     help="device for tests/device, which then prints a report (default: CPU, without a report)")


def pytest_collection_modifyitems(items):
    """Mark each test by its folder: `-m "not e2e"` skips the tests that run the scripts."""
    for item in items:
        item.add_marker(item.path.relative_to(ROOT / "tests").parts[0])


class SharingScheduling(LoadScopeScheduling):
    """With -n, run the tests of a file in one process, and likewise all tests of a folder in SHARING.

    xdist's `--dist loadgroup` would do the same, but pytest 9.2 does not read its groups.
    """

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        return next((folder for folder in SHARING if file.startswith(folder)), file)


def pytest_xdist_make_scheduler(config, log):
    return SharingScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def as_set_up_device_has_it():
    """Run operators one by one, keep freed memory, and exclude all imported objects from garbage collection."""
    from src.run.device import prepare_cpu
    prepare_cpu()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_logging():
    """Restore the program's logger after each test, because the scripts redirect it, and end scripts that still run."""
    logger = logging.getLogger("faster_rcnn")
    before = logger.handlers, logger.propagate, logger.level
    yield
    logger.handlers, logger.propagate, level = before
    logger.setLevel(level)  # also clears the logger's cache of enabled levels
    end_started()


@pytest.fixture
def run_tool(monkeypatch, capfd):
    """A function that runs the main function of a tool, a module, in this process with command-line words.

    It returns exit status, standard output and standard error.
    """
    def run_here(tool, *words):
        monkeypatch.setattr(sys, "argv", [tool.__name__, *map(str, words)])
        return run(tool.main, tool.parse_args), *capfd.readouterr()
    return run_here


@pytest.fixture(scope="session")
def compiled(tmp_path_factory, worker_id):
    """Path of the cache of compiled graphs that all script runs share, in all processes of pytest."""
    folder = tmp_path_factory.getbasetemp()
    return str((folder if worker_id == "master" else folder.parent) / "compiled")


@pytest.fixture(scope="session")
def kernels():
    """Path of the library of CPU kernels."""
    from src.cpu_kernels.library import library
    if needs_onednn_3.args[0]:
        pytest.skip(needs_onednn_3.kwargs["reason"])
    return library() or skip_or_fail("the kernels cannot be built here")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """WebDriver of a real browser, shared by all tests of a process."""
    from tests.helpers.browser import find_browser, start_browser
    paths, reason = find_browser()
    if not paths:
        skip_or_fail(reason)
    driver = start_browser(paths, tmp_path_factory.mktemp("browser"))
    yield driver
    driver.quit()
