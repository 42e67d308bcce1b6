"""Conversion of other programs' weights to this project's parameter names, and back."""
