"""Output folders."""
import os

from src.errors import UserError


def require_folder_of(path):
    """Check that the folder exists into which the file `path` is to be written.

    Raises:
        UserError: it does not.
    """
    folder = os.path.dirname(path)
    if folder and not os.path.isdir(folder):
        raise UserError(f"cannot write {path}: there is no folder {folder!r}; make it first.")


def make_folder(path):
    """Create the folder `path` unless it is there, and return it.

    Raises:
        UserError: it cannot be created or written to.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {path} ({error.strerror}); choose another --save_dir.") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"the folder {path} cannot be written to; choose another --save_dir.")
    return path
