"""Turn warnings raised in src into errors."""
import warnings

import pytest


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module=r"src\.")
        yield
