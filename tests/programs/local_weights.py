"""Run a script without PyTorch, with weights from given URLs: local_weights.py NAME=DIGEST=URL... -- SCRIPT ARGUMENTS."""
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from src.convert.downloads import SOURCES  # noqa: E402

separator = sys.argv.index("--")
for source in sys.argv[1:separator]:
    name, digest, url = source.split("=", 2)
    SOURCES[name] = url, digest
sys.modules["torch"] = None  # an import is an ImportError
sys.argv = sys.argv[separator + 1:]
runpy.run_path(str(ROOT / sys.argv[0]), run_name="__main__")
