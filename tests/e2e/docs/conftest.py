"""The documented commands, run once for all tests of a module, which names them in COMMANDS."""
import shutil

import pytest

from tests.helpers.documented_commands import finish, furnish


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The folder of the commands."""
    folder = tmp_path_factory.mktemp("readme")
    furnish(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def finished(home, request):
    """Command -> (finished process, the main files that it has written)."""
    return {command: finish(home, command) for command in request.module.COMMANDS}


@pytest.fixture
def assert_finished(finished):
    """A function that fails unless a command has run and written what it promises."""
    def check(command):
        done, written = finished[command]
        assert done.returncode == 0, done.stdout[-4000:]
        assert written
    return check
