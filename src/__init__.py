"""Faster R-CNN with a feature pyramid on MindSpore."""
