"""Annotation file -> records -> samples -> batches. Knows nothing of the network but the shape of its input."""
