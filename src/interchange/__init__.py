"""Weights of other frameworks, under the names of this project and back."""
