"""Drawings: boxes with names and scores, contact sheets, samples of an evaluation, curves of training and evaluation."""
