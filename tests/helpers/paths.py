"""Paths that many tests use."""
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ONE_LEVEL = ROOT / "tests" / "one_level.yml"  # a base configuration in the same folder
SECOND_NETWORK = ROOT / "config" / "faster_rcnn_v2.yml"  # a base configuration
TINY_DETECTOR = ROOT / "tests" / "tiny_detector.yml"
