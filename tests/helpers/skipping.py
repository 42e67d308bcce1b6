"""Skip tests if their requirements are missing."""
import os

import pytest


def skip_or_fail(reason):
    """Skip the test, or fail if the environment variable CI is true, because CI can install all requirements."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (this is a failure because of CI=true)")
    pytest.skip(reason)
