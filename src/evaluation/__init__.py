"""Turns the network's output into detections, result files and COCO metrics."""
