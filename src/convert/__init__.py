"""Weights of other programs, under the names of this project and back."""
