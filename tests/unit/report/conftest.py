"""An evaluation of images on disk."""
from types import SimpleNamespace

import pytest

from tests.helpers.reports import drawn_dataset, evaluated


@pytest.fixture
def case(tmp_path):
    """A data set of generated images, and an evaluation of detections on it: dataset, evaluation."""
    dataset = drawn_dataset(tmp_path)
    return SimpleNamespace(dataset=dataset, evaluation=evaluated(dataset))
