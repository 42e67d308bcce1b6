"""A hanging test fails after its time limit, and all processes that it started are ended."""
import os
import subprocess
import sys

from tests.helpers.paths import ROOT
from tests.helpers.scripts import MARK, has_ended


def test_a_test_that_hangs(tmp_path):
    variables = {name: value for name, value in os.environ.items() if name != MARK and not name.startswith("PYTEST_")}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/programs/hanging.py"],
                          cwd=ROOT, env={**variables, "IDS_FOLDER": str(tmp_path)}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=200)
    assert done.returncode == 1 and "Timeout" in done.stdout and "1 failed" in done.stdout, done.stdout + done.stderr
    ids = [int(word) for name in ("stays", "leaves") for word in (tmp_path / name).read_text().split()]
    assert len(ids) == 4 and all(map(has_ended, ids))
    assert done.stderr.count("which a test had left running") == 1  # the child process whose parent had exited
