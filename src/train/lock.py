"""One run a results folder: two would overwrite each other's checkpoints and mix their logs."""
import contextlib
import os
import socket

from src.errors import UserError
from src.files import make_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = ".run"


def claim_folder(path):
    """Claim the results folder `path` for this process, and create it where it is missing.

    The claim ends with the process, however that ends, or when what is returned is closed.

    Returns:
        The open file that holds the claim, as a context.

    Raises:
        UserError: another run has the folder, or it cannot be written to.
    """
    path = make_folder(path)
    try:
        file = open(os.path.join(path, NAME), "a+", encoding="utf-8")  # noqa: SIM115 it stays open
    except OSError as error:
        raise UserError(f"the folder {path} cannot be written to ({error.strerror}); choose another --save_dir.") from error
    if fcntl is None:
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise UserError(f"another run ({owner}) writes into the folder {path}; wait for its end, or give another "
                        "--save_dir.") from error
    except OSError:  # a file system without locks
        return file
    # On a full disk the claim holds all the same, without a name.
    with contextlib.suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return file
