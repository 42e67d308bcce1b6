"""A program that creates cells exits without a message."""
import pytest

from tests.helpers.paths import ROOT
from tests.helpers.scripts import run_script

PROGRAM = """
import gc
import numpy as np
import mindspore as ms
from mindspore import nn
import src.detector
{freeze}
ms.set_device("CPU")
ms.set_context(mode=ms.GRAPH_MODE)

of_the_module = nn.Dense(2, 3)
several = [nn.SequentialCell(nn.Dense(2, 3), nn.ReLU()) for _ in range(3)]
print(of_the_module(ms.Tensor(np.ones((1, 2), np.float32))).shape)  # which compiles a graph

def use_locally():
    network = nn.Dense(2, 3)
    network.itself = [network]  # only garbage collection deletes it

use_locally()
"""


@pytest.mark.parametrize("freeze", ["", "gc.freeze()"], ids=["plain", "frozen"])
def test_a_program_with_cells_ends_silently(tmp_path, freeze):
    """Also if the imported objects are excluded from garbage collection, as in src/run/device.py."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.format(freeze=freeze))
    done = run_script(path, environment={"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "(1, 3)\n", "")
