"""Where things are that many tests use."""
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TINY_DETECTOR = ROOT / "tests" / "tiny_detector.yml"
