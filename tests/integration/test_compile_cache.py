"""Which graphs are taken up. That a run on them has the bits of one without is tested in e2e/single/test_end_to_end_resume.py."""
import os
import subprocess
import sys

from tests.helpers.paths import ROOT


def products(*words):
    """What tests/programs/scale_one.py prints for its arguments."""
    done = subprocess.run([sys.executable, "tests/programs/scale_one.py", *map(str, words)], cwd=ROOT, capture_output=True,
                          text=True, timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("product ")]


def test_graphs_are_taken_up_by_their_names(tmp_path):
    """Only the factor of an earlier process tells a graph that is taken up from one that is compiled."""
    assert products(tmp_path, "gradients=2", "update=3") == [2, 3]
    # The third was missing and is stored; a graph of another name is not.
    assert products(tmp_path, "gradients=11", "other=7", "update=13", "inference=5") == [2, 7, 3, 5]
    # Before its turn it is compiled.
    assert products(tmp_path, "inference=17", "gradients=11", "update=13") == [17, 2, 3]
    assert products(tmp_path, "gradients=11", "update=13", "inference=17") == [2, 3, 5]
