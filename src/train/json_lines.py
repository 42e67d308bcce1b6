"""Files of one JSON object a line that grow with a run and survive its interruptions."""
import contextlib
import json
import logging
import os

import numpy as np

from src.errors import UserError
from src.files import whole_file

logger = logging.getLogger("faster_rcnn")


class JsonLines:
    """Appends lines to a file; where the disk is full the log says so, and the lines wait for room.

    Args:
        path: of the file; key: of the number that rises from line to line; last: lines of higher numbers are dropped, as they
        will be written again; 0 begins the file anew.

    Raises:
        UserError: the file cannot be written to.
    """

    def __init__(self, path, key, last):
        try:
            if os.path.isfile(path):
                _drop_lines_after(path, key, last)
            self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115 open as long as the run
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror}); choose another --save_dir.") from error
        self.path = path

    def write(self, line):
        """Append `line`, a dict of numbers; one that is not finite becomes null, as JSON has none."""
        self._write(json.dumps({k: v if np.isfinite(v) else None for k, v in line.items()}) + "\n")

    def close(self):
        self._write("")
        # What still does not fit on the disk is lost now: a second failure has nothing to add to the log.
        with contextlib.suppress(OSError):
            self.file.close()

    def _write(self, text):
        # What the disk does not take stays in the buffer of the file, for the next time.
        try:
            self.file.write(text)
            self.file.flush()
        except OSError as error:
            logger.error("%s could not be written (%s); training goes on", self.path, error.strerror)


def read_json_lines(path, key):
    """The lines of a file that `JsonLines` wrote, as dicts; without those that a crash has damaged or that lack the number `key`.

    Raises:
        OSError: there is no such file, or it cannot be read.
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
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(text for text, line in zip(texts, lines) if line and line[key] <= last)


def _parse(text, key):
    """A line as a dict whose `key` is a whole number, or None where a crash has cut it off or it is none of this program's."""
    try:
        line = json.loads(text) if text.endswith("\n") else None
        return line if isinstance(line[key], int) else None
    except (ValueError, KeyError, TypeError):
        return None
