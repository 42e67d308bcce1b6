"""What torchvision computed, for comparison."""
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def stored():
    """What torchvision computes on two photographs, name -> array."""
    with np.load(Path(__file__).with_name("fasterrcnn_r50_fpn_320x416.npz")) as file:
        return dict(file)
