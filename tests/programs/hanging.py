"""A hanging test, run by tests/integration/test_time_limit.py. It writes the ids of the processes that it starts."""
import os
import time
from pathlib import Path

import pytest

from tests.helpers.scripts import Script

PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(os.getpid(), child.pid, flush=True)
time.sleep(600 if sys.argv[1] == "stays" else 0)
"""


@pytest.fixture
def started():
    """Processes with children; the ids of all are written. The time limit does not include their start."""
    folder = Path(os.environ["IDS_FOLDER"])
    for word in ("stays", "leaves"):
        Script(["-c", PARENT, word], folder / word, folder / f"{word}.errors")
    deadline = time.monotonic() + 30
    while not all((folder / word).read_text().endswith("\n") for word in ("stays", "leaves")):
        assert time.monotonic() < deadline, "the processes have not written their ids within 30 s"
        time.sleep(0.05)


@pytest.mark.timeout(2, func_only=True)
def test_that_hangs(started):
    time.sleep(600)
