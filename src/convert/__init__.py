"""Conversion between the weights of other programs and this project's parameter names."""
