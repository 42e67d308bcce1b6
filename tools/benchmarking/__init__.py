"""What tools/benchmark.py measures in this program and in other programs."""
