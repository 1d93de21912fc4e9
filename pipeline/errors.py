"""Define the exception whose message is written for the user."""


class UserError(Exception):
    """A mistake that the user can fix.

    The message is one sentence that names the file or the key and says what to do. A command
    prints it without a traceback and exits with status 1.
    """
