"""Detection on pictures that no annotation describes."""
