"""Draws boxes with names and scores, contact sheets, samples of an evaluation, and curves of training and evaluation."""
