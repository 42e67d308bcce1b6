"""src/run/environment.py, in a new process."""
import os
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

# All modules are imported first, because another user may not be able to read Python's files.
HOME = """
import os, pwd
from src.run.environment import set_environment
os.setuid(54321)  # not in the list of users
set_environment()
print(os.path.expanduser("~"))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize(("variables", "home"), [({}, "/nonexistent"), ({"HOME": "/somewhere"}, "/somewhere")])
def test_a_user_without_a_home_folder_gets_none_called_tilde(variables, home):
    done = subprocess.run([sys.executable, "-c", HOME], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{home}\n"), done.stderr
