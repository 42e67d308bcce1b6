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
from src.signals import StopSignals

PARTIAL = ".partial_"  # how the names of unfinished files begin


@contextlib.contextmanager
def whole_file(path):
    """The temporary path to write the file `path` to: it gets its name when the block is complete and the disk has it.

    Whatever happens, an earlier file of that name stays as it was until then. What was written by a block that fails is
    removed.
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
    """A block whose system call may fail because the file system does not support it; other errors are raised."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise


def flush_to_disk(path):
    """Return when the disk has what was written to the file, or which names are in the folder."""
    descriptor = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
    try:
        with if_supported() if os.path.isdir(path) else contextlib.nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def apply_umask(path):
    """Give a file the mode of a new file; MindSpore makes its files readable for their owner only."""
    os.umask(umask := os.umask(0o077))
    with if_supported():
        os.chmod(path, 0o666 & ~umask)


def remove_partial(folder, stem=""):
    """Remove the unfinished files of a folder whose final names begin with `stem`, as a killed process leaves them."""
    for path in glob.glob(os.path.join(glob.escape(folder), PARTIAL + glob.escape(stem) + "*")):
        with contextlib.suppress(OSError):  # it stays where it is a folder, or another user's
            os.remove(path)


@contextlib.contextmanager
def writing_into(folder, what):
    """A block that writes files into `folder`; `what` they are begins the sentence if it fails.

    Raises:
        UserError: the system has refused something, for example because the disk is full.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{what} could not be written into {folder} ({error.strerror}); make room on the disk.") from error


def prepare_output(path):
    """Make the folder of the file `path` where it is missing, and check, before anything takes time, that it can be written to.

    Raises:
        UserError: it cannot, or `path` is a folder itself.
    """
    if os.path.isdir(path):
        raise UserError(f"cannot write {path}: it is a folder; give a file's path.")
    make_folder(os.path.dirname(path) or os.curdir, f"give {path} another path")


def make_folder(path, advice="choose another --save_dir", private=False):
    """Create the folder `path` unless it is there, and return it.

    Args:
        advice: what to do where that fails.
        private: it must belong to this user, and no other user may write to it, because programs load code from it.

    Raises:
        UserError: it cannot be created or written to, or another user owns a private one.
    """
    try:
        os.makedirs(path, 0o700 if private else 0o777, exist_ok=True)
        if private and os.stat(path).st_uid == os.geteuid():
            with contextlib.suppress(OSError):  # then the mode decides
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
        wait: for the process that has it locked.

    Returns:
        Whether this process has it locked now; None on a file system without locks.
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
    """A block for one process at a time; before it, files in `folder` are removed that an earlier block has not left as they are.

    They are damaged, or a killed process or another user wrote them. Files whose names do not match `pattern` are left alone.
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
