"""Detection on images that no annotation describes."""
