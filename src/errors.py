"""The one exception type for mistakes that the user can mend."""


class UserError(Exception):
    """A wrong flag, file, annotation or setting: one sentence that says what, where and what to do.

    The command line prints it without a traceback and exits with status 1.
    """
