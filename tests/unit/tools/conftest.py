"""The command line of tools/benchmark.py with the tiny detector."""
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT


@pytest.fixture(scope="session")
def run_benchmark():
    """A function that runs the tool on images of 64 x 64 with further flags, and returns the finished process."""
    def run(*flags):
        words = ["tools/benchmark.py", "--config", "tests/tiny_detector.yml", "--device_target", "CPU", "--height", 64,
                 "--width", 64, "--batch", 1, "--steps", 1, *flags]
        return subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=200)
    return run
