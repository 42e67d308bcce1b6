"""Output files and folders."""
import contextlib
import os

from src.errors import UserError


@contextlib.contextmanager
def whole_file(path):
    """The temporary path to write the file `path` to: it gets its name when the block is complete.

    A crash leaves an earlier file of that name as it was.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".partial_{name}")
    yield temporary
    os.replace(temporary, path)


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
