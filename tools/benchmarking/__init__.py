"""What tools/benchmark.py measures: the detector's steps, where their time goes, and the data pipeline."""
