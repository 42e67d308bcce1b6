"""Tests import `src` from the root of the repository, and before MindSpore, for which it sets environment variables."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import src  # noqa: E402, F401
