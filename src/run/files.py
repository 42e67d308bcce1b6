"""Output files and folders. Files are complete or absent after a crash; JSON lines grow with a run."""
from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from src.errors import UserError
from src.run.launch import StopSignals

logger = logging.getLogger("faster_rcnn")

PARTIAL = ".partial_"  # prefix of the names of unfinished files


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[str]:
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
def if_supported() -> Iterator[None]:
    """Ignore the error of a system call that the file system does not support; other errors are raised."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise


def flush_to_disk(*paths: str) -> None:
    """Flush files and the entries of folders to the disk, if the file system supports it."""
    for path in paths:
        with if_supported():
            descriptor = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def apply_umask(path: str | os.PathLike) -> None:
    """Give a file the mode of a new file; MindSpore makes its files readable only by their owner."""
    os.umask(umask := os.umask(0o077))
    with if_supported():
        os.chmod(path, 0o666 & ~umask)


def remove_partial(folder: str, stem: str = "") -> None:
    """Remove unfinished files that a killed process left in a folder, if their final names begin with `stem`."""
    for path in glob.glob(os.path.join(glob.escape(folder), PARTIAL + glob.escape(stem) + "*")):
        with contextlib.suppress(OSError):  # a folder or another user's file stays
            os.remove(path)


@contextlib.contextmanager
def writing_into(folder: str, what: str) -> Iterator[None]:
    """Turn an OSError of a block that writes files into `folder` into a UserError; its message begins with `what`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what} could not be written into {folder} ({error.strerror}); make room on the disk.") from error


def prepare_output(path: str | os.PathLike) -> None:
    """Create the folder of the file `path` if it is missing; raise a UserError if it is not writable or `path` is a folder."""
    if os.path.isdir(path):
        raise UserError(f"cannot write {path}: it is a folder; give a file's path.")
    make_folder(os.path.dirname(path) or os.curdir, f"give {path} another path")


def make_folder(path: str, advice: str = "choose another --save_dir", private: bool = False) -> str:
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


def lock_file(file: IO, wait: bool = False) -> bool | None:
    """Lock an open file for this process until it is closed; return whether it holds the lock, None without support for locks.

    If another process holds the lock, `wait` waits for it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextlib.contextmanager
def verified_files(folder: str, pattern: str = "*") -> Iterator[None]:
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
                logger.warning("removed %s: it is damaged or incomplete", path)
                path.unlink()
        yield
        if (lines := list(_digests(folder, pattern).values())) != expected:
            with contextlib.suppress(OSError):  # if the disk is full, the next block removes the files
                lock.truncate(0)
                lock.write(os.fsencode("\n".join(lines)))


def _digests(folder, pattern):
    paths = sorted(path for path in Path(folder).rglob(pattern) if path.is_file() and path.name != "lock")
    return {path: f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}" for path in paths}


class JsonLines:
    """Appends lines of JSON to a file. If the disk is full, an error is logged and the lines are kept for the next write. If the
    file cannot be opened, the constructor raises a UserError.

    Args:
        path: path of the file.
        key: key of the integer that increases from line to line.
        last: existing lines with higher numbers are removed, because they will be written again; 0 starts a new file.
    """

    def __init__(self, path: str, key: str, last: int):
        self.path = path
        try:
            if last and os.path.isfile(path):
                lines = [line for line in read_json_lines(path, key) if line[key] <= last]
                with atomic_write(path) as temporary:
                    Path(temporary).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            self.file = open(path, "a" if last else "w", encoding="utf-8")  # noqa: SIM115 open during the whole run
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror}); choose another --save_dir.") from error

    def write(self, line: dict) -> None:
        """Append `line`, a dict of numbers; non-finite numbers become null, because JSON has no NaN."""
        self._write(json.dumps({k: v if math.isfinite(v) else None for k, v in line.items()}) + "\n")

    def close(self) -> None:
        """Write the lines that a full disk has kept back, or log the error and drop them; close the file."""
        self._write("")
        with contextlib.suppress(OSError):
            self.file.close()

    def _write(self, text):
        # After a failure, the text stays in the file's buffer for the next flush.
        try:
            self.file.write(text)
            self.file.flush()
        except OSError as error:
            logger.error("%s could not be written (%s); training goes on", self.path, error.strerror)


def read_json_lines(path: str | os.PathLike, key: str) -> list[dict]:
    """Return the lines of a file that `JsonLines` wrote, except lines that a crash has damaged or that lack the integer `key`."""
    lines, damaged = [], 0
    with open(path, encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
                if not (text.endswith("\n") and isinstance(line[key], int)):
                    raise ValueError
                lines.append(line)
            except (ValueError, KeyError, TypeError):
                damaged += 1
    if damaged:
        logger.warning("%s: %d lines that cannot be read are left out", path, damaged)
    return lines
