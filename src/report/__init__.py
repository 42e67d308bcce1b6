"""HTML reports of an evaluation, of two evaluations side by side, and of a training run. Each report is a single file."""
