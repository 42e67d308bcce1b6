"""Output files and folders."""
import contextlib
import errno
import fcntl
import glob
import hashlib
import logging
import os
from pathlib import Path

from src.errors import UserError
from src.run.signals import StopSignals

PARTIAL = ".partial_"  # prefix of the names of unfinished files


@contextlib.contextmanager
def atomic_write(path):
    """Yield a temporary path for writing the file `path`; after the block, the file is flushed to disk and renamed to `path`.

    Until then, an existing file `path` remains unchanged. If the block fails, the temporary file is removed.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, PARTIAL + name)
    try:
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
    except BaseException:
        remove_partial(folder, os.path.splitext(name)[0])
        raise
    flush_to_disk(folder or ".")


@contextlib.contextmanager
def if_supported():
    """Ignore the error of a system call that the file system does not support; other errors are raised."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise


def flush_to_disk(path):
    """Wait until the disk has the contents of the file, or the names in the folder."""
    descriptor = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
    try:
        with if_supported() if os.path.isdir(path) else contextlib.nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def apply_umask(path):
    """Give a file the mode of a new file; MindSpore makes its files readable only by their owner."""
    os.umask(umask := os.umask(0o077))
    with if_supported():
        os.chmod(path, 0o666 & ~umask)


def remove_partial(folder, stem=""):
    """Remove unfinished files that a killed process left in a folder, if their final names begin with `stem`."""
    for path in glob.glob(os.path.join(glob.escape(folder), PARTIAL + glob.escape(stem) + "*")):
        with contextlib.suppress(OSError):  # a folder or another user's file stays
            os.remove(path)


@contextlib.contextmanager
def writing_into(folder, what):
    """Turn an OSError of a block that writes files into `folder` into a UserError; its message begins with `what`.

    Raises:
        UserError: if the system reports an error, for example because the disk is full.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{what} could not be written into {folder} ({error.strerror}); make room on the disk.") from error


def prepare_output(path):
    """Create the folder of the file `path` if it is missing, and check before any long computation that it is writable.

    Raises:
        UserError: if the folder is not writable, or `path` itself is a folder.
    """
    if os.path.isdir(path):
        raise UserError(f"cannot write {path}: it is a folder; give a file's path.")
    make_folder(os.path.dirname(path) or os.curdir, f"give {path} another path")


def make_folder(path, advice="choose another --save_dir", private=False):
    """Create the folder `path` if it does not exist, and return `path`.

    Args:
        advice: advice to the user if that fails.
        private: whether it must belong to this user and be writable by no other user, because programs load code from it.

    Raises:
        UserError: if the folder cannot be created or written to, or a private folder belongs to another user.
    """
    try:
        os.makedirs(path, 0o700 if private else 0o777, exist_ok=True)
        if private and os.stat(path).st_uid == os.geteuid():
            with contextlib.suppress(OSError):  # the mode is checked below
                os.chmod(path, 0o700)
        if private and (os.stat(path).st_uid != os.geteuid() or os.stat(path).st_mode & 0o022):
            raise UserError(f"the folder {path} belongs to another user, or others can write to it; {advice}.")
    except OSError as error:
        raise UserError(f"cannot create the folder {path} ({error.strerror}); {advice}.") from error
    if not os.access(path, os.W_OK):
        raise UserError(f"the folder {path} cannot be written to; {advice}.")
    return path


def lock_file(file, wait=False):
    """Lock an open file for this process until it is closed.

    Args:
        wait: whether to wait until another process releases its lock.

    Returns:
        Whether this process now holds the lock; None on a file system without locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextlib.contextmanager
def verified_files(folder, pattern="*"):
    """Lock `folder` during the block; before it, remove files that are new or changed since the previous block.

    Such files are damaged, or a killed process or another user wrote them. Files whose names do not match `pattern` are kept.
    """
    with open(os.path.join(folder, "lock"), "ab+", buffering=0) as lock:
        with StopSignals.idle():
            locked = lock_file(lock, wait=True)
        lock.seek(0)
        expected = os.fsdecode(lock.read()).splitlines()
        for path, line in _digests(folder, pattern).items():
            # Without a lock, another process may be writing the file.
            if locked and (line not in expected or path.stat().st_uid != os.geteuid()):
                logging.getLogger("faster_rcnn").warning("removed %s: it is damaged or incomplete", path)
                path.unlink()
        yield
        if (lines := list(_digests(folder, pattern).values())) != expected:
            with contextlib.suppress(OSError):  # if the disk is full, the next block removes the files
                lock.truncate(0)
                lock.write(os.fsencode("\n".join(lines)))


def _digests(folder, pattern):
    paths = sorted(path for path in Path(folder).rglob(pattern) if path.is_file() and path.name != "lock")
    return {path: f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}" for path in paths}
