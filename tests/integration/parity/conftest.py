"""Stored results of torchvision."""
import pytest

from tests.helpers.parity.cases import FIRST_NETWORK, stored_arrays


@pytest.fixture(scope="session")
def stored():
    """torchvision's results of its first network on two photographs, name -> array."""
    return stored_arrays(FIRST_NETWORK)
