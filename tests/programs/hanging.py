"""A test that hangs, run by tests/integration/test_time_limit.py. It writes the ids of the processes that it has started."""
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


@pytest.mark.timeout(5, func_only=True)
def test_that_hangs():
    folder = Path(os.environ["IDS_FOLDER"])
    for word in ("stays", "leaves"):
        Script(["-c", PARENT, word], folder / word, folder / f"{word}.errors")
    time.sleep(600)
