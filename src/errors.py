"""The exception type for mistakes that the user can fix, and the formatting of values and texts in its message."""
from __future__ import annotations

import re
import reprlib

# Line ends and other characters that a terminal interprets.
CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
MAX_LENGTH = 80

_short = reprlib.Repr()
_short.maxlevel, _short.maxlong, _short.maxstring, _short.maxother = 4, MAX_LENGTH, MAX_LENGTH, MAX_LENGTH
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxdict = 20


class UserError(Exception):
    """A wrong flag, file, annotation or setting. The message is one sentence with the problem, its location and the fix.

    The command line prints it without a traceback and exits with status 1.
    """


def short_repr(value: object) -> str:
    """Return `value` as text of at most MAX_LENGTH characters, however large or deeply nested it is."""
    try:
        text = _short.repr(value)
    except ValueError:  # Python does not format integers of more than some thousand digits
        text = "a number with too many digits to show"
    return text if len(text) <= MAX_LENGTH else text[:MAX_LENGTH - 3] + "..."


def one_line(text: str) -> str:
    """Return `text` with its control characters, including line ends, replaced by Python's escapes, such as \\n."""
    return CONTROL_CHARACTERS.sub(lambda found: repr(found[0])[1:-1], text)


def is_printable(text: str) -> bool:
    """Return whether `text` is valid as a name or a path: without control characters, and encodable in UTF-8.

    Surrogate characters, which represent a path's undecodable bytes in Python, are allowed.
    """
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return not CONTROL_CHARACTERS.search(text)
