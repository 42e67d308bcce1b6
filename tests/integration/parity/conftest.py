"""Stored results of torchvision."""
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def stored():
    """torchvision's results on two photographs, name -> array."""
    with np.load(Path(__file__).with_name("fasterrcnn_r50_fpn_320x416.npz")) as file:
        return dict(file)
