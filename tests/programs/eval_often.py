"""Run eval.py with progress output ten times per second."""
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from src.evaluation import evaluate  # noqa: E402

evaluate.PROGRESS_SECONDS = 0.1
runpy.run_path(str(ROOT / "eval.py"), run_name="__main__")
