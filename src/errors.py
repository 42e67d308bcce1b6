"""The one exception type for mistakes that the user can mend, and how values and texts appear in its sentence."""
import re
import reprlib

# Line ends and other characters that a terminal acts upon.
CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
MAX_LENGTH = 80

_short = reprlib.Repr()
_short.maxlevel, _short.maxlong, _short.maxstring, _short.maxother = 4, MAX_LENGTH, MAX_LENGTH, MAX_LENGTH
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxdict = 20


class UserError(Exception):
    """A wrong flag, file, annotation or setting: one sentence that says what, where and what to do.

    The command line prints it without a traceback and exits with status 1.
    """


def show(value):
    """`value` as text of at most MAX_LENGTH characters, however large or deeply nested it is."""
    try:
        text = _short.repr(value)
    except ValueError:  # Python writes no int of more than some thousand digits
        text = "a number with too many digits to show"
    return text if len(text) <= MAX_LENGTH else text[:MAX_LENGTH - 3] + "..."


def one_line(text):
    """`text` with its control characters, line ends among them, written as Python writes them, such as \\n."""
    return CONTROL_CHARACTERS.sub(lambda found: repr(found[0])[1:-1], text)


def is_plain(text):
    """Whether `text` may be a name or a path: it has no control characters and can be written in UTF-8.

    Characters by which Python stands for the undecodable bytes of a path are allowed.
    """
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return not CONTROL_CHARACTERS.search(text)
