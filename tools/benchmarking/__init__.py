"""Measurements of tools/benchmark.py: the detector's steps, the parts of a training step, and the data pipeline."""
