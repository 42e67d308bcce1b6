"""Skip tests if their requirements are missing."""
import os
from importlib.metadata import version

import pytest

from src.run.environment import version_differences

needs_onednn_3 = pytest.mark.skipif(version_differences(version("mindspore"))[1] < 3,
                                    reason="MindSpore 2.7 and 2.8 contain oneDNN 2, and the CPU kernels need oneDNN 3")


def skip_or_fail(reason):
    """Skip the test, or fail if the environment variable CI is true, because CI can install all requirements."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (this is a failure because of CI=true)")
    pytest.skip(reason)
