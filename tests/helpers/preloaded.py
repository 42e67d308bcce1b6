"""What the scripts import before they differ, see tests/helpers/scripts.py."""
import sys

from src.environment import set_environment
from tests.helpers.paths import ROOT

set_environment()
# As `python train.py` has them: while it is imported, MindSpore notes whose changes make stored graphs invalid.
sys.argv = [str(ROOT / "train.py")]
sys.path[:] = [str(ROOT), *(path for path in sys.path if path not in ("", str(ROOT)))]

import matplotlib.figure  # noqa: E402, F401

import src.config.command_line  # noqa: E402, F401
import src.detector  # noqa: E402, F401 with MindSpore, mindcv and OpenCV
import src.train.evaluator  # noqa: E402, F401
