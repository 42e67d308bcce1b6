"""Files with one JSON object per line that grow with a run and stay readable after interruptions."""
from __future__ import annotations

import contextlib
import json
import logging
import os

import numpy as np

from src.errors import UserError
from src.run.files import atomic_write

logger = logging.getLogger("faster_rcnn")


class JsonLines:
    """Appends lines to a file. If the disk is full, an error is logged and the lines are kept for the next write.

    Args:
        path: path of the file.
        key: key of the integer that increases from line to line.
        last: existing lines with higher numbers are removed, because they will be written again; 0 starts a new file.

    Raises:
        UserError: if the file cannot be written to.
    """

    def __init__(self, path: str, key: str, last: int):
        try:
            if os.path.isfile(path):
                _drop_lines_after(path, key, last)
            self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115 open during the whole run
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror}); choose another --save_dir.") from error
        self.path = path

    def write(self, line: dict) -> None:
        """Append `line`, a dict of numbers; non-finite numbers become null, because JSON has no NaN."""
        self._write(json.dumps({k: v if np.isfinite(v) else None for k, v in line.items()}) + "\n")

    def close(self) -> None:
        self._write("")
        # Text that still does not fit on the disk is lost; the call above has logged the reason.
        with contextlib.suppress(OSError):
            self.file.close()

    def _write(self, text):
        # After a failure, the text stays in the file's buffer for the next flush.
        try:
            self.file.write(text)
            self.file.flush()
        except OSError as error:
            logger.error("%s could not be written (%s); training goes on", self.path, error.strerror)


def read_json_lines(path: str, key: str) -> list[dict]:
    """Return the lines of a file that `JsonLines` wrote, except lines that a crash has damaged or that lack the number `key`.

    Raises:
        OSError: if the file does not exist or cannot be read.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        return [line for line in (_parse(text, key) for text in file) if line]


def _drop_lines_after(path, key, last):
    if last == 0:
        os.remove(path)
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        texts = file.readlines()
    lines = [_parse(text, key) for text in texts]
    damaged = lines.count(None)
    if damaged:
        logger.warning("%s: %d lines that cannot be read are left out", path, damaged)
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(text for text, line in zip(texts, lines) if line and line[key] <= last)


def _parse(text, key):
    """Return a line as a dict whose `key` is an integer, or None if it is incomplete or something else."""
    try:
        line = json.loads(text)
        return line if text.endswith("\n") and isinstance(line[key], int) else None
    except (ValueError, KeyError, TypeError):
        return None
