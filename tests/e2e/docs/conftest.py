"""Runs the documented commands once for all tests of a module. The module lists them in COMMANDS."""
import shutil

import pytest

from tests.helpers.documented_commands import finish, furnish


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The working directory of the commands."""
    folder = tmp_path_factory.mktemp("readme")
    furnish(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def finished(home, request):
    """Dict: command -> (finished process, its main output files)."""
    return {command: finish(home, command) for command in request.module.COMMANDS}


@pytest.fixture
def assert_finished(finished):
    """A function that fails unless a command has run and written its documented files."""
    def check(command):
        done, written = finished[command]
        assert done.returncode == 0, done.stdout[-4000:]
        assert written
    return check
